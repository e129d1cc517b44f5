"""How the value of a setting, and a whole setting, is written wherever people read it."""

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any


def setting_text(value: Any) -> str:
    """The value of a setting: four digits of a number that is not whole, anything else as Python writes it.

    >>> [setting_text(value) for value in (0.123456, 12345, True, None, "bf16", (0.5, 1.0))]
    ['0.1235', '12345', 'True', 'None', 'bf16', '(0.5, 1)']
    """
    if isinstance(value, tuple | list):
        return f"({', '.join(map(setting_text, value))})"
    if isinstance(value, Real) and not isinstance(value, Integral):
        return f"{value:.4g}"
    return str(value)


def settings_text(params: Mapping[str, Any]) -> str:
    """A whole setting: mask_ratio 0.8  precision bf16."""
    return "  ".join(f"{name} {setting_text(value)}" for name, value in params.items())


def stored(value: Any) -> Any:
    """What a study's storage holds of a chosen value: of a tuple, which Optuna cannot store, its text."""
    return f"({', '.join(map(str, value))})" if isinstance(value, tuple | list) else value
