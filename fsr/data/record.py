"""What `prepare` decided beside the lists, in `prepared.json`: where the masks lie, and which images are left out."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from fsr.errors import UserError
from fsr.files import write_json
from fsr.json_file import DamagedError, read_json

_NAMED = 5  # images that a sentence names; the file names all


@dataclass(frozen=True)
class Record:
    """Of one folder of lists. Who reads a list of it does as it says."""

    mask_folder: str | None = None
    """Where masks are looked for first: absolute, or below the lists."""
    left_out: dict[str, dict[str, str]] = field(default_factory=dict)
    """By list: images that `prepare --skip_bad` left out of it, and what was wrong with each."""


def record_file(list_folder: Path) -> Path:
    """Where the record of a folder of lists lies."""
    return list_folder / "prepared.json"


def read_record(list_folder: Path, remedy: str) -> Record:
    """The record of a folder of lists, an empty one where there is none.

    `remedy` is the command that makes it. Raises UserError if it is damaged or cannot be read.
    """
    file = record_file(list_folder)
    try:
        return read_json(file, Record)
    except (FileNotFoundError, NotADirectoryError):
        return Record()
    except DamagedError as error:
        raise UserError(f"{error}; remove it, and make it anew with `{remedy}`") from None
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from None


def write_record(list_folder: Path, mask_folder: Path | None, left_out: dict[str, dict[str, str]]) -> None:
    """Write the record, so that `read_record` returns it; a folder below the lists may be moved together with them."""
    if mask_folder is None:
        place = None
    elif mask_folder.is_relative_to(list_folder):
        place = str(mask_folder.relative_to(list_folder))
    else:
        place = str(mask_folder.absolute())
    write_json(record_file(list_folder), asdict(Record(place, left_out)))


def told(record: Record, split: str, list_folder: Path) -> str | None:
    """A sentence about the images that are left out of a list; None if none are."""
    names = list(record.left_out.get(split, {}))
    if not names:
        return None
    others = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    are = "image is" if len(names) == 1 else "images are"
    return (
        f"{split}: {len(names)} {are} left out because of bad files: {', '.join(names[:_NAMED])}{others} "
        f"({record_file(list_folder)})"
    )
