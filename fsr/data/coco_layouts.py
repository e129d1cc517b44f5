"""How COCO masks from elsewhere number their classes, and which of these ways a folder of masks follows."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from fsr.data.images import IGNORED
from fsr.errors import UserError

# A value that means no class; 254 is never a class of COCO.
_IMPOSSIBLE = 254


def _table(class_of_value: dict[int, int]) -> np.ndarray:
    table = np.full(256, _IMPOSSIBLE, np.uint8)
    table[IGNORED] = IGNORED
    for value, class_id in class_of_value.items():
        table[value] = class_id
    return table


def layouts(class_of_category: dict[int, int]) -> dict[str, np.ndarray]:
    """Tables from a mask's value to the class, uint8 [256], by name; this project's own way comes first.

    `class_of_category` maps COCO's category ids, 1..90 with gaps, to classes 1..80.
    """
    stuff = {value: 0 for value in range(91, 182)}
    return {
        "classes 0 to 80": _table({class_id: class_id for class_id in (0, *class_of_category.values())}),
        "category ids 0 to 90": _table({0: 0} | class_of_category),
        "COCO-Stuff's category ids less 1": _table(
            {category - 1: class_id for category, class_id in class_of_category.items()} | stuff
        ),
    }


def to_classes(values: np.ndarray, table: np.ndarray, file: Path) -> np.ndarray:
    """Classes of a mask's values, uint8 [H, W]. Raises UserError for a value that means none."""
    classes: np.ndarray = table[values]
    impossible = classes == _IMPOSSIBLE
    if impossible.any():
        value = values[impossible].min()
        raise UserError(f"mask {file} has the value {value}, which is no class in the layout of its folder")
    return classes


def recognise(masks: Iterable[tuple[Path, np.ndarray, tuple[int, ...]]], tables: dict[str, np.ndarray]) -> np.ndarray:
    """The table by which masks hold no class that their images lack.

    `masks` gives file, values [H, W] and the image's classes, and is read until one way is left; if several are left,
    they say the same of these masks, and the first of them is taken. Raises UserError if none is left.
    """
    left = dict(tables)
    for file, values, classes in masks:
        allowed = (0, *classes, IGNORED)
        found = np.unique(values)
        fitting = {name: table for name, table in left.items() if np.isin(table[found], allowed).all()}
        if not fitting:
            raise UserError(
                f"mask {file} holds the values {', '.join(map(str, found))}, but its image the classes "
                f"{', '.join(map(str, classes)) or 'none'}; allowed layouts: {', '.join(tables)}"
            )
        left = fitting
        if len(left) == 1:
            break
    return next(iter(left.values()))
