"""Every combination of some values, in the order in which a study tries them; none is made before it is asked for."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, overload

Cell = dict[str, Any]


class Grid(Sequence[Cell]):
    """The cells of a grid as a sequence that takes no memory for them: a grid may have millions.

    The first choice of each name is the base's. Its cell comes first, then each other choice alone, then the cells that
    change the most names, down to two.

    >>> [tuple(cell.values()) for cell in Grid({"a": [0, 1], "b": [0, 1], "c": [0, 1]})][3:6]
    [(1, 0, 0), (1, 1, 1), (0, 1, 1)]
    """

    def __init__(self, choices: Mapping[str, Sequence[Any]]) -> None:
        self._choices = {name: list(values) for name, values in choices.items()}
        # _counts[i][k]: in how many ways k names from the i-th on can be changed, and the others not.
        self._counts = [[1] + [0] * len(choices)]
        for values in reversed(self._choices.values()):
            after, others = self._counts[0], len(values) - 1
            self._counts.insert(0, [ways + others * fewer for ways, fewer in zip(after, [0, *after], strict=False)])
        fewest, most = min(1, len(choices)), len(choices)
        self._order = [*range(fewest + 1), *range(most, fewest, -1)]  # numbers of changed names

    def with_values(self, change: Callable[[Any], Any]) -> "Grid":
        """The same cells with each value changed."""
        return Grid({name: [change(value) for value in values] for name, values in self._choices.items()})

    def __len__(self) -> int:
        return math.prod(map(len, self._choices.values()))

    @overload
    def __getitem__(self, place: int) -> Cell: ...

    @overload
    def __getitem__(self, place: slice) -> list[Cell]: ...

    def __getitem__(self, place: int | slice) -> Cell | list[Cell]:
        if isinstance(place, slice):
            return [self._cell(number) for number in range(len(self))[place]]
        return self._cell(range(len(self))[place])

    def _cell(self, number: int) -> Cell:
        """The cell with this many before it: counted off by the number of changed names, then name by name."""
        for changed in self._order:
            if number < self._counts[0][changed]:
                break
            number -= self._counts[0][changed]
        cell = {}
        for counts, (name, values) in zip(self._counts[1:], self._choices.items(), strict=True):
            chosen = 0
            if number >= counts[changed]:
                number -= counts[changed]
                changed -= 1
                chosen, number = 1 + number // counts[changed], number % counts[changed]
            cell[name] = values[chosen]
        return cell
