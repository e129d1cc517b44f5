"""The prepared lists: one text file a set, one image a line, `NAME 1,15`; the class ids are missing in a test set."""

import re
from dataclasses import dataclass
from pathlib import Path

from fsr.data.images import reason
from fsr.errors import UnreadableError, UserError, unreadable
from fsr.files import write_atomically
from fsr.regular_file import read_regular

_LINE = re.compile(r"([^\s/]+)(?: (\d+(?:,\d+)*))?")


@dataclass(frozen=True)
class Item:
    """One image of a list."""

    name: str
    """File name without its ending."""
    classes: tuple[int, ...]
    """Foreground classes in the image, 1..K, rising; empty where unknown."""


def read_list(file: Path, num_classes: int, remedy: str) -> list[Item]:
    """The images of a prepared list.

    `num_classes` counts the background; `remedy` is the command that makes the list. Raises UserError if the list is
    missing or empty, and for a damaged line or a class id that is not in 1..num_classes - 1.
    """
    try:
        lines = read_regular(file).decode().splitlines()
    except FileNotFoundError:
        raise UnreadableError(f"list {file} is missing; make it with `{remedy}`") from None
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(error)(f"list {file} cannot be read ({reason(error)}); make it anew with `{remedy}`") from None
    if not lines:
        raise UserError(f"list {file} is empty; make it anew with `{remedy}`")
    return [_read_line(line, f"line {number} of list {file}", num_classes) for number, line in enumerate(lines, 1)]


def _read_line(line: str, place: str, num_classes: int) -> Item:
    match = _LINE.fullmatch(line)
    if match is None:
        raise UserError(f"{place} must read `NAME` or `NAME 1,15`, got {line!r}")
    name, ids = match.groups()
    classes = tuple(int(text) for text in ids.split(",")) if ids else ()
    for class_id in classes:
        if not 1 <= class_id < num_classes:
            raise UserError(
                f"{place} has class {class_id}; with num_classes {num_classes} it must be 1 to {num_classes - 1}"
            )
    return Item(name, classes)


def write_list(file: Path, items: list[Item]) -> None:
    """Write `items` so that `read_list` returns them."""
    lines = [" ".join([item.name, ",".join(map(str, item.classes))]).rstrip() for item in items]
    write_atomically(file, "".join(f"{line}\n" for line in lines).encode())
