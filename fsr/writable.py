"""Whether a place can be written, which every command asks before it works: a probe is written there, and removed.

What modes and mounts say is not enough: a disk may be full, a quota used up, a file system read-only.
"""

import errno
import os
import stat
from pathlib import Path

from fsr.errors import UserError
from fsr.files import open_file, unfinished
from fsr.system_errors import no_right, sentence_of

TOO_LONG = " … cannot be written: a name may have {0} bytes, and a path 4096; take a shorter one"
PROBE = bytes(4096)  # a block: an empty file needs no space


def check_folder(folder: Path, flag: str) -> None:
    """Raise UserError unless files can be made in a folder, which need not be there yet. `flag` says what names it."""
    said = f"{flag} {folder}"
    there = _nearest(folder, said)
    if not there.is_dir():
        what = "is" if there == folder else f"cannot be made: {there} is"
        raise UserError(f"{said} {what} a file, not a folder; take another one")
    _probe(there, said)


def check_file(file: Path, flag: str) -> None:
    """Raise UserError unless a file can be written, or replaced if it is there."""
    said = f"{flag} {file}"
    there = _nearest(file, said)
    if there != file:
        check_folder(file.parent, flag)
        return
    found = file.lstat()
    if not stat.S_ISREG(file.stat().st_mode):
        raise UserError(f"{said} is {'a folder' if file.is_dir() else 'no regular file'}; name a file to write")
    folder = file.parent.stat()
    if folder.st_mode & stat.S_ISVTX and os.geteuid() not in (0, found.st_uid, folder.st_uid):
        raise UserError(no_right(file))  # in a sticky folder each replaces his own files alone
    _probe(file.parent, said)


def _nearest(path: Path, said: str) -> Path:
    """The path, or the nearest above it that is there. Raises UserError where the rest cannot be made below it."""
    missing: list[str] = []
    for there in (path, *path.absolute().parents):
        try:
            there.stat()
        except (FileNotFoundError, NotADirectoryError):
            if there.is_symlink():
                raise UserError(
                    f"{said} cannot be written: {there} is a link to {os.readlink(there)}, which is not there"
                ) from None
            missing.append(there.name)
            continue
        except PermissionError:
            raise UserError(no_right(there)) from None
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise UserError(f"{said[:300]}{TOO_LONG.format(255)}") from None
            reason = "a link that leads in a circle" if error.errno == errno.ELOOP else error.strerror
            raise UserError(f"{said} cannot be written: {there} is {reason}") from None
        longest = os.pathconf(there, "PC_NAME_MAX")
        if any(len(os.fsencode(name)) > longest for name in missing):
            raise UserError(f"{said[:300]}{TOO_LONG.format(longest)}")
        return there
    raise UserError(f"{said} cannot be written: nothing of its path is there")


def _probe(folder: Path, said: str) -> None:
    probe = unfinished(folder / "probe")
    try:
        try:
            with open_file(probe, "xb") as file:
                file.write(PROBE)
                file.flush()
                os.fsync(file.fileno())
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        error.filename = str(folder)
        raise UserError(sentence_of(error) or f"{said} cannot be written: {error.strerror}") from error
