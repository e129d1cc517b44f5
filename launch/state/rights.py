"""Whether this user may do in a folder what a command is about to do: asked before anything is touched."""

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from fsr.errors import UserError
from fsr.system_errors import nearest, no_right
from fsr.writable import check_folder
from launch.state.journal import JOURNAL
from launch.state.paths import LaunchFolder, StudyFolder


def check_rights(folder: LaunchFolder) -> None:
    """Raise UserError, with whose it is and what helps, unless this user may and can work in this folder."""
    _check(folder, _places(folder))
    check_folder(folder.folder, folder.option)


def check_rights_to_trials(folder: StudyFolder, numbers: Iterable[int]) -> None:
    """The same for the runs and locks of trials that are to be resumed."""
    _check(folder, (path for n in numbers for path in (folder.run(n).folder, folder.trial_lock(n).path)))


def may_write(folder: LaunchFolder) -> bool:
    """Whether this user may work in this folder."""
    return all(_may_use(path) for path in _places(folder))


def _check(folder: LaunchFolder, paths: Iterable[Path]) -> None:
    for path in paths:
        if not _may_use(path):
            raise UserError(no_right(path, f"take another {folder.option} folder"))


def _places(folder: LaunchFolder) -> Iterator[Path]:
    """What every command that starts workers writes: folders, in which files are made and replaced, and files."""
    if not folder.folder.exists():
        yield nearest(folder.folder)
        return
    yield folder.folder
    parts = (folder.locks, folder.code.folder, folder.slurm, folder.mistakes_folder, folder.folder / "local")
    yield from (*parts, folder.bad_nodes, folder.folder / "ended", folder.folder / JOURNAL)
    yield from (folder.locks / f"{name}.lock" for name in ("sweep", "claim", "run"))
    yield folder.folder / f"{JOURNAL}.lock"


def _may_use(path: Path) -> bool:
    """Whether this user may write to a file, or make and replace files in a folder; also where it is not there yet."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return True
    except PermissionError:
        return False
    if not stat.S_ISDIR(found.st_mode):
        return os.access(path, os.R_OK | os.W_OK)
    # In a sticky folder each can replace his own files alone.
    strangers = (
        found.st_mode & stat.S_ISVTX
        and os.geteuid() not in (0, found.st_uid)
        and any(entry.stat(follow_symlinks=False).st_uid != os.geteuid() for entry in os.scandir(path))
    )
    return os.access(path, os.R_OK | os.W_OK | os.X_OK) and not strangers
