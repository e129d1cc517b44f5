"""Where the lists of a data set lie: beside it, or in the user's cache where it is read-only."""

import hashlib
import os
from pathlib import Path

from fsr.errors import UserError
from fsr.writable import check_folder


def list_folder_of(root: Path) -> Path:
    """The folder that holds the lists: `ImageSets/fsr` of the data set, unless `prepare` wrote them to the cache."""
    beside, cached = beside_the_set(root), in_the_cache(root)
    return beside if cached is None or beside.is_dir() or not cached.is_dir() else cached


def writable_list_folder(root: Path) -> Path:
    """The folder for new lists: `ImageSets/fsr` of the data set if they can be written there, else in the cache.

    Raises UserError if neither can be written.
    """
    beside, cached = beside_the_set(root), in_the_cache(root)
    try:
        check_folder(beside, "the data set's")
    except UserError as error:
        if cached is None or beside.is_dir():  # lists that are there would be read, not the new ones
            raise UserError(f"{error} (or give a --list_folder)") from None
        try:
            check_folder(cached, "the cache's")
        except UserError as of_cache:
            raise UserError(f"lists have no place: {error}; {of_cache} (or give a --list_folder)") from None
        print(f"{beside} cannot be written: lists and masks go to {cached}, where all commands of yours look for them")
        return cached
    return beside


def beside_the_set(root: Path) -> Path:
    """The usual place."""
    return root / "ImageSets" / "fsr"


def in_the_cache(root: Path, what: str = "lists") -> Path | None:
    """$XDG_CACHE_HOME/fsr/lists, or ~/.cache/fsr/lists, by the data set's path; None where there is no home.

    `what` may be something else of a data set that is saved there.
    """
    named = os.environ.get("XDG_CACHE_HOME", "")
    try:
        cache = Path(named) if os.path.isabs(named) else Path.home() / ".cache"
    except RuntimeError:
        return None
    digest = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
    return cache / "fsr" / what / f"{root.name}-{digest}"
