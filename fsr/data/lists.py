"""Lists of images, one a line: those that come with data sets, and the prepared ones, `NAME 1,15` with class ids."""

import codecs
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fsr.data.images import reason
from fsr.data.names import image_name, shown
from fsr.errors import UnreadableError, UserError, unreadable
from fsr.files import write_atomically
from fsr.regular_file import read_regular

_CLASSES = re.compile(r"[0-9]{1,5}(?:,[0-9]{1,5})*")


class Entry(NamedTuple):
    """What a line says."""

    place: str
    """Line and list, for messages."""
    line: str
    name: str
    """The image's, without its ending."""
    rest: list[str]
    """The words behind it."""


@dataclass(frozen=True)
class Item:
    """One image of a prepared list."""

    name: str
    """File name without its ending."""
    classes: tuple[int, ...]
    """Foreground classes in the image, 1..K, rising; empty where unknown."""


def read_entries(file: Path) -> list[Entry]:
    """The lines of a list, of which each begins with an image, by its name or path, and may go on with its mask's path.

    The text is UTF-8, or UTF-16 with its mark, as PowerShell writes it; lines may be blank. Raises OSError if the file
    cannot be read, UserError that names list and line for other bytes, for what is no name, and for an image that the
    list has twice.
    """
    lines: dict[str, int] = {}
    entries = []
    for number, line in enumerate(text_lines(read_regular(file), file), 1):
        words = line.strip(" \t\n").split()
        if not words:
            continue
        place = f"line {number} of list {file}"
        name, rest = image_name(words[0], place), words[1:]
        if rest and rest[0].lower().endswith(".png"):
            mask = image_name(rest.pop(0), place)
            if mask != name:
                raise UserError(f"{place} has the image {shown(name)} with the mask of {shown(mask)}")
        if name in lines:
            raise UserError(f"{place} has the image {shown(name)} again, which is in line {lines[name]}")
        lines[name] = number
        entries.append(Entry(place, line.rstrip("\n"), name, rest))
    return entries


def text_lines(content: bytes, file: Path) -> Iterator[str]:
    """The lines of a list in UTF-8 or UTF-16. Raises UserError for other bytes."""
    encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"line {line} of list {file} is no text in {encoding.removesuffix('-sig').upper()}") from None
    return io.StringIO(text, newline=None)  # ends of lines as any system writes them


def read_list(file: Path, num_classes: int, remedy: str) -> list[Item]:
    """The images of a prepared list.

    `num_classes` counts the background; `remedy` is the command that makes the list. Raises UserError if the list is
    missing or empty, and for a damaged line or a class id that is not in 1..num_classes - 1.
    """
    try:
        entries = read_entries(file)
    except FileNotFoundError:
        raise UnreadableError(f"list {file} is missing; make it with `{remedy}`") from None
    except OSError as error:
        raise unreadable(error)(f"list {file} cannot be read ({reason(error)}); make it anew with `{remedy}`") from None
    if not entries:
        raise UserError(f"list {file} is empty; make it anew with `{remedy}`")
    return [_item(entry, num_classes) for entry in entries]


def _item(entry: Entry, num_classes: int) -> Item:
    place, line, name, rest = entry
    if len(rest) > 1 or not all(_CLASSES.fullmatch(word) for word in rest):
        raise UserError(f"{place} must read `NAME` or `NAME 1,15`, got {shown(line)}")
    classes = tuple(int(text) for text in rest[0].split(",")) if rest else ()
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
