"""`classes.txt`: the names of the classes of a data set of one's own, in order. Every command goes by it."""

import os
from pathlib import Path
from typing import NamedTuple

from fsr.data.images import IGNORED
from fsr.data.names import shown
from fsr.errors import UserError
from fsr.regular_file import read_regular

FILE = "classes.txt"
BACKGROUND = "background"


class OwnClasses(NamedTuple):
    """What a classes.txt says."""

    file: Path
    names: tuple[str, ...]
    """Background first."""


def own_classes(root: Path, data_folder: Path) -> OwnClasses | None:
    """The classes of the data set in `root`, whose classes.txt lies there or in the data folder; None without one.

    Raises UserError if it cannot be read as such a list, or if the two folders have different ones.
    """
    files = [file for file in dict.fromkeys((root / FILE, data_folder / FILE)) if os.path.lexists(file)]
    found = [OwnClasses(file, read_class_names(file)) for file in files]
    if len({names for _, names in found}) > 1:
        raise UserError(f"{files[0]} and {files[1]} name different classes; remove one of them")
    return found[0] if found else None


def read_class_names(file: Path) -> tuple[str, ...]:
    """Background and the classes of a list, one a line; `background`, in any case, may be the first line.

    Raises UserError if the file is no text, or has no class, one twice, or more than 254.
    """
    try:
        lines = [line.strip() for line in read_regular(file).decode("utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"it is no UTF-8, {error.reason}"
        raise UserError(f"list of classes {file} cannot be read: {reason}") from None
    lines = [line for line in lines if line]
    if lines and lines[0].lower() == BACKGROUND:
        del lines[0]
    names = [BACKGROUND, *lines]
    for name in names:
        if names.count(name) > 1 or not name.isprintable() or "/" in name:
            raise UserError(f"list of classes {file} must have each class once, printable, no `/`, got {shown(name)}")
    if not 1 < len(names) < IGNORED + 1:
        raise UserError(f"list of classes {file} must have 1 to {IGNORED - 1} classes, got {len(names) - 1}")
    return tuple(names)
