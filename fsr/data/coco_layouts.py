"""How COCO masks from elsewhere number their classes, and which of these ways a folder of masks follows."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from fsr.data.images import IGNORED
from fsr.data.truth import MOST_CONTRADICTIONS
from fsr.errors import UserError

# A value that means no class; 254 is never a class of COCO.
_IMPOSSIBLE = 254
_SEVERAL = 3  # masks; a single one may contradict its image by mistake


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


def own_layout(classes: int) -> dict[str, np.ndarray]:
    """The one way of a data set of one's own: a mask holds its classes, `classes` with the background."""
    return {f"classes 0 to {classes - 1}": _table({class_id: class_id for class_id in range(classes)})}


def to_classes(values: np.ndarray, table: np.ndarray, file: Path) -> np.ndarray:
    """Classes of a mask's values, uint8 [H, W]. Raises UserError for a value that means none."""
    classes: np.ndarray = table[values]
    impossible = classes == _IMPOSSIBLE
    if impossible.any():
        value = values[impossible].min()
        raise UserError(f"mask {file} has the value {value}, which is no class in the layout of its folder")
    return classes


def recognise(masks: Iterable[tuple[Path, np.ndarray, tuple[int, ...]]], tables: dict[str, np.ndarray]) -> str:
    """The name of the table by which masks hold classes that their images have.

    `masks` gives file, values [H, W] and the image's classes, and is read until all other ways contradict several more
    of them; if several ways are left, they say the same of these masks, and the first of them is taken. Raises
    UserError if even the best contradicts more masks than any data set's own do.
    """
    wrong: dict[str, list[str]] = {name: [] for name in tables}
    count = 0
    for count, (file, values, classes) in enumerate(masks, 1):
        found = np.unique(values)
        for name, table in tables.items():
            if not np.isin(table[found], (0, *classes, IGNORED)).all():
                wrong[name].append(
                    f"mask {file} holds the values {', '.join(map(str, found))}, but its image the classes "
                    f"{', '.join(map(str, classes)) or 'none'}"
                )
        fewest, *others = sorted(map(len, wrong.values()))
        if others and others[0] >= fewest + _SEVERAL and fewest <= MOST_CONTRADICTIONS * count:
            break
    best = min(wrong, key=lambda name: len(wrong[name]))  # the first of those
    if len(wrong[best]) > MOST_CONTRADICTIONS * count:
        raise UserError(
            f"{wrong[best][0]}; allowed layouts: {', '.join(tables)}, of which the best contradicts "
            f"{len(wrong[best])} of {count} masks"
        )
    return best
