"""The range of numbers that each numeric field of a configuration, and each numeric flag of a command, allows.

A field declares its range in its annotation, as in `lr: Annotated[float, POSITIVE]`, and a dataclass that is `Bounded`
refuses what is outside: NaN and infinity are in no range. A range holds for every number of a tuple.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from fsr.errors import UserError


@dataclass(frozen=True)
class Bounds:
    """Numbers from `low` to `high`; with `above` without `low` itself, with `below` without `high` itself."""

    low: float
    high: float
    above: bool = False
    below: bool = False

    def allows(self, number: float) -> bool:
        """Whether a number is in this range."""
        rises = self.low < number if self.above else self.low <= number
        return rises and (number < self.high if self.below else number <= self.high)

    def __str__(self) -> str:
        if isinstance(self.low, int) and isinstance(self.high, int):
            return f"from {self.low} to {self.high}"
        return f"in {'(' if self.above else '['}{self.low:g}, {self.high:g}{')' if self.below else ']'}"


FRACTION = Bounds(0.0, 1.0)
POSITIVE_FRACTION = Bounds(0.0, 1.0, above=True)
FRACTION_BELOW_1 = Bounds(0.0, 1.0, below=True)
FACTOR = Bounds(0.0, 1e6)
POSITIVE = Bounds(0.0, 1e6, above=True)
STEPS = Bounds(1, 10**9)
COUNT = Bounds(1, 10**6)
WIDTH = Bounds(1, 2**20)
SIDE = Bounds(1, 2**14)
PROCESSES = Bounds(0, 1024)
WORKERS = Bounds(1, 10**5)
SEED = Bounds(0, 2**63 - 1)
PORT = Bounds(0, 65535)


def bounds_of(kind: Callable[..., Any]) -> dict[str, Bounds]:
    """The ranges that the annotations of a dataclass's fields, or of a function's parameters, declare, by name."""
    hints = get_type_hints(kind, include_extras=True)
    marks = {name: getattr(hint, "__metadata__", ()) for name, hint in hints.items()}
    return {name: mark for name, found in marks.items() for mark in found if isinstance(mark, Bounds)}


def check_bounds(kind: Callable[..., Any], values: Mapping[str, Any], prefix: str = "") -> None:
    """Raise UserError for the first number that is outside its range; what is no number has none.

    `prefix` stands before the name: the dashes of a flag, or the file that says it.
    """
    for name, bounds in bounds_of(kind).items():
        value = values.get(name)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int | float) and not bounds.allows(number):
                raise UserError(f"{prefix}{name} must be {bounds}, got {_shown(value)}")


def _shown(value: Any) -> str:
    """A value as text: Python refuses to write whole numbers of thousands of digits."""
    try:
        return str(value)[:100]
    except ValueError:
        return "a number of thousands of digits"


class Bounded:
    """A dataclass of flags, whose numbers are in their ranges. Raises UserError for one that is not."""

    def __post_init__(self) -> None:
        check_bounds(type(self), vars(self), "--")
