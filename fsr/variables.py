"""Whole numbers that launchers such as torchrun leave in the environment."""

import os

from fsr.bounds import Bounds
from fsr.errors import UserError


def whole_number(name: str, default: int | None, bounds: Bounds) -> int:
    """The number that a variable of the environment holds, or the default where it is unset.

    Raises UserError for what is no such number, and where there is no default.
    """
    text = os.environ.get(name)
    if text is None and default is not None:
        return default
    number = int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 20 else None
    if number is None or not bounds.allows(number):
        found = "is not set" if text is None else f"is {text[:100]!r}"
        raise UserError(f"the variable {name} must be a whole number {bounds}, as torchrun sets it, and {found}")
    return number
