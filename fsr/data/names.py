"""Names of images: what lists, annotations and journals say is the name of a file in a known folder, never a path."""

import re
from pathlib import PurePosixPath

from fsr.errors import UserError

LONGEST = 128  # bytes; file systems take 255, of which endings, class names and unfinished files need the rest
_SHOWN = 80
_NO_ENDS = "\"';[]{}<>"  # which belong to another kind of list: CSV, JSON, a page
_PICTURE = re.compile(r"\.(jpe?g|png)", re.IGNORECASE)
_FOLDER = re.compile(r"JPEGImages|SegmentationClass\w*")  # whose pictures are known by their names alone


def check_name(name: str, place: str) -> str:
    """The name, if it can be nothing but that of a file in the folder where it is looked for.

    `place` is where it stands. Raises UserError that tells the place and shows the name, its signs escaped.
    """
    flaw = _flaw(name)
    if flaw is not None:
        raise UserError(
            f"{place} has the name {shown(name)}, which {flaw}; allowed is the name of a file in its folder"
        )
    return name


def check_path(name: str, place: str) -> str:
    """The name, if it can be nothing but that of a file below the folder where it is looked for. Raises UserError."""
    if "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise UserError(f"{place} has the name {shown(name)}; allowed is the path of a file below its folder")
    return name


def _flaw(name: str) -> str | None:
    if not name:
        return "is empty"
    if "/" in name or "\\" in name or re.match("[A-Za-z]:", name):
        return "is a path"
    if name[0] in ".-":
        return f"begins with {name[0]!r}"
    if name[0] in _NO_ENDS or name[-1] in _NO_ENDS:
        return f"begins or ends with {name[0] if name[0] in _NO_ENDS else name[-1]!r}"
    if not name.isprintable():
        return "holds a sign that is not printed"
    if " " in name or "," in name:
        return f"holds a {'space' if ' ' in name else 'comma'}"
    if len(name.encode()) > LONGEST:
        return f"is longer than {LONGEST} bytes"
    return None


def shown(text: str) -> str:
    """A text of others in a message: in quotes, what a terminal would obey escaped, cut where it is long."""
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}…"


def image_name(word: str, place: str) -> str:
    """The image that a word of a list means: `x`, `./x.jpg`, or a path such as `/JPEGImages/x.jpg` that only names it.

    Raises UserError as `check_name` does, also for a path into another folder.
    """
    word = word.removeprefix("./")
    path = PurePosixPath(word)
    in_known_folder = any(_FOLDER.fullmatch(part) for part in path.parts[:-1]) and ".." not in path.parts
    name = path.name if in_known_folder else word
    stem, ending = name[: name.rfind(".")], name[name.rfind(".") :]
    return check_name(stem if _PICTURE.fullmatch(ending) else name, place)
