"""Pictures of anybody's, which belong to no data set: those below a folder, or the ones that are named."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from fsr.data.image_set import ImageSet
from fsr.data.images import read_image
from fsr.data.lists import Item, text_lines
from fsr.data.names import LONGEST, shown
from fsr.data.prepared import IMAGE_ENDINGS
from fsr.errors import UserError
from fsr.regular_file import read_regular

LIST_ENDING = ".txt"
_ENDINGS = {ending.lower() for ending in IMAGE_ENDINGS}


class PlainPictures(ImageSet):
    """Pictures without labels, as they are shown: turned as their EXIF says.

    An image's name is its path below `root` without the ending; with it where two would have the same name.

    Args:
        folder: all pictures below it, if no others are named.
        named: pictures, folders of pictures, and lists (`.txt`) with a path a line, from the list's own folder.
        results: where results will lie, which are no pictures of anybody's.

    Raises UserError if a place does not exist or holds no picture.
    """

    def __init__(self, folder: Path, named: Sequence[Path], results: Path) -> None:
        self.class_names = ()  # told by the checkpoint
        self._results, self._others = results.resolve(), Counter[str]()
        files = [*dict.fromkeys(Path(os.path.abspath(file)) for place in named or [folder] for file in self._in(place))]
        if not files:
            found = ", ".join(self._others) or "nothing"
            where = ", ".join(map(str, named or [folder]))
            raise UserError(f"{where} holds no picture, which ends in {', '.join(sorted(_ENDINGS))}; it holds {found}")
        folder = Path(os.path.abspath(folder))
        if not all(file.is_relative_to(folder) for file in files):
            folder = Path(os.path.commonpath([file.parent for file in files]))
        self.root = folder
        self._files = named_files(files, folder)

    def _in(self, place: Path) -> Iterator[Path]:
        """The pictures of a place that somebody named."""
        if place.is_dir():
            yield from self._below(place, set())
        elif place.suffix.lower() == LIST_ENDING:
            yield from listed(place)
        elif os.path.lexists(place):
            yield place
        else:
            raise UserError(f"{place} does not exist; expected are pictures, folders of pictures or lists of them")

    def _below(self, folder: Path, above: set[tuple[int, int]]) -> Iterator[Path]:
        """The pictures below a folder, sorted; nothing hidden, and no results of an inference."""
        found = folder.stat()
        if (found.st_dev, found.st_ino) in above or folder.resolve() == self._results or _holds_results(folder):
            return  # a link into the folders above would have no end
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise UserError(f"folder {folder} cannot be read: {error.strerror}") from None
        for entry in entries:
            path = Path(entry.path)
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from self._below(path, above | {(found.st_dev, found.st_ino)})
            elif path.suffix.lower() in _ENDINGS:
                yield path
            else:
                self._others[path.suffix or path.name] += 1

    def items(self, split: str) -> list[Item]:
        """All pictures, with no labels."""
        return [Item(name, ()) for name in self._files]

    def left_out(self, split: str) -> str | None:
        """How many files of folders are no pictures by their names."""
        if not self._others:
            return None
        kinds = ", ".join(f"{count} {shown(kind)}" for kind, count in sorted(self._others.items()))
        return f"{self._others.total()} files are left out, which end in none of {', '.join(sorted(_ENDINGS))}: {kinds}"

    def has_ground_truth(self, split: str) -> bool:
        """None has."""
        return False

    def image_file(self, name: str, split: str) -> Path:
        """The file of a picture."""
        return self._files[name]

    def mask_file(self, name: str, split: str) -> None:
        """None has one."""

    def ground_truth(self, name: str, split: str, size: tuple[int, int] | None) -> np.ndarray | None:
        """None has one."""
        return None

    def picture(self, name: str, split: str) -> Image.Image:
        """The picture as it is shown. Raises UserError for a bad file."""
        return read_image(self.image_file(name, split), upright=True)


def listed(file: Path) -> Iterator[Path]:
    """The pictures of a list, a path a line. Raises UserError if it cannot be read or names none."""
    try:
        lines = [line.strip("\n") for line in text_lines(read_regular(file), file)]
    except OSError as error:
        raise UserError(f"list {file} cannot be read: {error.strerror}") from None
    paths = [file.parent / line.strip() for line in lines if line.strip()]
    if not paths:
        raise UserError(f"list {file} is empty; expected is the path of a picture a line, from the list's own folder")
    yield from paths


def named_files(files: Sequence[Path], folder: Path) -> dict[str, Path]:
    """The files below a folder by the names of their images. Raises UserError for one that is too long."""
    whole = [file.relative_to(folder).as_posix() for file in files]
    names = [name.removesuffix(file.suffix) for name, file in zip(whole, files, strict=True)]
    while len(set(names)) < len(names):
        often = Counter(names)
        names = [full if often[name] > 1 else name for name, full in zip(names, whole, strict=True)]
    for name, file in zip(names, files, strict=True):
        if len(os.fsencode(name.rpartition("/")[2])) > LONGEST:
            raise UserError(f"picture {file} has a name of more than {LONGEST} bytes; its results need a shorter one")
    return dict(zip(names, files, strict=True))


def _holds_results(folder: Path) -> bool:
    return (folder / "settings.json").exists() and any((folder / "images").glob("*.jsonl"))
