"""What the operating system refuses, in one sentence: no right to write, a full disk, no memory, no more files."""

import errno
import grp
import os
import pwd
import resource
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from fsr.next_command import next_command

FULL = (errno.ENOSPC, errno.EDQUOT)
# What torch.save says of a write that failed; it does not tell why, and of whole files little else can fail.
TORCHS_WORDS = ("unexpected pos", "enforce fail at inline_container", "file write failed")
SYSTEMS_WORDS = tuple(os.strerror(number) for number in FULL)
# Paths that are not what they have to be.
WRONG_PATHS = (errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTEMPTY, errno.EXDEV)
NO_MEMORY = "not enough memory: {0}; allow more (ulimit -v, --sbatch mem=…), or take smaller batches, fewer workers"
NO_FILES = "no more files can be opened: {0}; allow more (ulimit -n, now {files}), or take fewer workers"
NO_PROCESSES = "no more processes or threads can be started: {0}; allow more (ulimit -u), or take fewer workers"
NO_TEMPORARY = "no temporary file can be made: {0}; set TMPDIR to a folder that can be written"
TOO_LARGE = "a file would be larger than is allowed here: {0}; allow more (ulimit -f)"
# What a process cannot get here, by what its error says: Python's, torch's and the dynamic linker's words.
SHORTAGES = {
    NO_MEMORY: ("annot allocate memory", "can't allocate memory", "out of memory", "failed to map segment"),
    NO_FILES: (os.strerror(errno.EMFILE), os.strerror(errno.ENFILE)),
    TOO_LARGE: (os.strerror(errno.EFBIG),),
    NO_TEMPORARY: ("No usable temporary directory",),
    NO_PROCESSES: ("can't start new thread", os.strerror(errno.EAGAIN)),
}


def disk_is_full(error: BaseException) -> bool:
    """Whether an error means, or comes of, that no space (or quota) is left."""
    if any(isinstance(cause, OSError) and cause.errno == errno.EFBIG for cause in _with_causes(error)):
        return False  # torch's words for this limit are the same, and waiting does not lift it
    for cause in _with_causes(error):
        if isinstance(cause, OSError) and cause.errno in FULL:
            return True
        if isinstance(cause, RuntimeError) and any(words in str(cause) for words in (*TORCHS_WORDS, *SYSTEMS_WORDS)):
            return True
    return False


def sentence_of(error: BaseException) -> str | None:
    """What the system refused, and what to do, for a user; None for an error that is of another kind."""
    refused = next((cause for cause in _with_causes(error) if isinstance(cause, OSError) and cause.filename), None)
    path = None if refused is None else Path(os.fsdecode(refused.filename))
    if disk_is_full(error):
        return no_space(path)
    if path is not None and isinstance(error, PermissionError):
        return no_right(path)
    if path is not None and isinstance(error, OSError) and error.errno == errno.EROFS:
        return f"{path} cannot be written, as it lies on a file system that is mounted read-only; take another folder"
    if path is not None and isinstance(error, OSError) and error.errno in WRONG_PATHS:
        return f"{path} cannot be used: {os.strerror(error.errno)}; take another one"
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop"):  # pathlib's, before Python 3.13
        return f"a path cannot be used: {error}; take another one"
    return shortage(error)


def shortage(error: BaseException) -> str | None:
    """That memory, files or processes are used up, or another limit is met; None for an error of another kind."""
    for cause in _with_causes(error):
        if not isinstance(cause, OSError | RuntimeError | ImportError | MemoryError):
            continue
        said = " ".join(str(cause).split()) or "an allocation failed"
        for sentence, words in SHORTAGES.items():
            if any(word in said for word in words) or (sentence is NO_MEMORY and isinstance(cause, MemoryError)):
                return sentence.format(said[:200], files=resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    return None


def no_space(path: Path | None) -> str:
    """That a file or folder cannot be written, for the disk is full."""
    if path is None:
        return "no space is left on the disk, or your quota is used up; make room, then run the same command again"
    folder = nearest(path if path.is_dir() else path.parent)
    free = shutil.disk_usage(folder).free / 1e6
    return (
        f"{path} cannot be written: no space is left in {folder} ({free:,.1f} MB are free), or your quota is used up; "
        "make room, then run the same command again"
    )


def no_right(path: Path, remedy: str = "choose another folder") -> str:
    """That this user may not use a file or folder as he wants to: whose it is, and what helps."""
    there = nearest(path)
    found = there.stat()
    what = there if there == path else f"{path} in {there}"
    mode = stat.S_IMODE(found.st_mode)
    return (
        f"{getuser()} has no right to use {what}, which belongs to {_user(found.st_uid)}:{_group(found.st_gid)} with "
        f"mode {mode:04o}; let its owner share it with your group (chgrp -R GROUP, chmod -R g+rwX), or {remedy}"
    )


def no_locks(path: Path, error: OSError) -> str:
    """That the file system of a file does not lock it."""
    return (
        f"{path} cannot be locked ({error.strerror or error}), and without locks two processes would do the same work; "
        f"take a folder on a file system that has locks ({next_command('doctor', '--runs', 'DIR')} tries them)"
    )


def getuser() -> str:
    """Name of this process's user."""
    return _user(os.geteuid())


def nearest(path: Path) -> Path:
    """The path itself, or the nearest folder above it that is there and that this user can see."""
    for there in (path, *path.absolute().parents):
        try:
            there.stat()
        except OSError:
            continue
        return there
    return Path("/")


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what it was raised from, what was being handled then, and so on."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:  # in a container, say
        return str(number)


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
