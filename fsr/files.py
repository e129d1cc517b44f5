"""How this program writes: files and folders take group and mode of the folder they lie in, and no file is half there.

Every file that it makes goes through here, so that several people can work in one folder: in one that its group may
write to, so may it to everything that is made there, whatever the umask; in a private one, all is private; else the
umask decides.
"""

import errno
import itertools
import json
import os
import platform
import re
import shutil
import stat
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

from fsr.system_errors import disk_is_full

HOST = re.sub(r"[^\w-]", "_", platform.node())
UNFINISHED = re.compile(r"\..*\.(?P<host>[\w-]*)\.(?P<pid>\d+)\.\d+\.part", re.DOTALL)
LONG_DEAD_S = 24 * 3600.0  # longer than clocks differ, and than any file takes to be written
ACL_GROUP, ACL_MASK = 0x04, 0x10  # tags of entries in a POSIX ACL
_numbers = itertools.count()


def make_folder(path: Path) -> None:
    """Make a folder, and those above it that are missing.

    Raises NotADirectoryError that names a file, or a link to nothing, in its place.
    """
    if path.is_dir():
        return
    make_folder(path.parent)
    try:
        path.mkdir()
    except FileExistsError:
        if path.is_dir():  # another process made it meanwhile
            return
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from None
    _take_after_folder(path, 0o777)


def open_file(path: Path, mode: str, *, lock: bool = False, **options: Any) -> IO[Any]:
    """`open` for writing, which makes a new file, and its folder, as this program's files are.

    Who may not write to a `lock` may not read it either: else he could take it, and stop those who may.
    """
    return open(path, mode, opener=partial(create, lock=lock), **options)


def create(path: str | Path, flags: int, *, lock: bool = False) -> int:
    """`os.open`, which makes a new file, and its folder, as this program's files are."""
    path = Path(path)
    flags |= os.O_CLOEXEC
    if not flags & os.O_EXCL:
        with suppress(FileNotFoundError):
            return os.open(path, flags & ~os.O_CREAT)
    if not flags & os.O_CREAT:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    make_folder(path.parent)
    try:
        # Nobody else may have it open before it has its mode.
        file = os.open(path, flags | os.O_EXCL, 0o666 if _has_default_acl(path.parent) else 0o600)
    except FileExistsError:
        if flags & os.O_EXCL:
            raise
        return os.open(path, flags & ~os.O_CREAT)  # another process made it meanwhile
    try:
        _take_after_folder(path, 0o666, file, lock)
    except BaseException:
        os.close(file)
        raise
    return file


def _take_after_folder(path: Path, most: int, file: int | None = None, lock: bool = False) -> None:
    """Give a new file or folder group and mode of the folder it lies in.

    In a folder that its group may write to, the group may do here what it may there, whatever the umask. Else the umask
    decides, but never gives more than the folder does; in a sticky folder such as /tmp, where strangers meet, it
    decides alone. A default ACL of the folder says it all, and the system has obeyed it.
    """
    folder, new = path.parent.stat(), path.stat() if file is None else os.fstat(file)
    if _has_default_acl(path.parent):
        return
    target: Path | int = path if file is None else file
    wanted = _without_umask(most)
    if not folder.st_mode & stat.S_ISVTX:
        given = _shared_mode(path.parent, folder) & most
        wanted = wanted & given | (given & 0o070 if given & 0o020 else 0)
    foreign = not folder.st_mode & stat.S_ISVTX and new.st_gid != folder.st_gid
    if foreign and not _obeyed(lambda: os.chown(target, -1, folder.st_gid)):
        wanted &= ~0o070  # not this user's group: his own must not get its rights
    if lock:
        wanted &= (wanted & 0o222) | (wanted & 0o222) << 1
    if stat.S_ISDIR(new.st_mode):
        wanted |= folder.st_mode & stat.S_ISGID
    if stat.S_IMODE(new.st_mode) != wanted:
        _obeyed(lambda: os.chmod(target, wanted))


def _obeyed(change: Callable[[], None]) -> bool:
    """Make a change of group or mode; whether it could be made. Some file systems know neither (CIFS, FUSE)."""
    try:
        change()
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
        return False
    return True


def _shared_mode(folder: Path, found: os.stat_result) -> int:
    """Rights that a folder gives to its owner, its group and others.

    Where it has an ACL, the bits of the group are the ACL's mask: the most that any of its users and groups may.
    """
    mode = stat.S_IMODE(found.st_mode) & 0o777
    entries = {tag: rights for tag, rights, _ in _acl(folder, "access")}
    if ACL_GROUP in entries:
        mode = mode & ~0o070 | (entries[ACL_GROUP] & entries.get(ACL_MASK, 7)) << 3
    return mode


def _has_default_acl(folder: Path) -> bool:
    return bool(_acl(folder, "default"))


def _acl(folder: Path, kind: str) -> list[tuple[int, int, int]]:
    """Entries (tag, rights, user or group) of a folder's POSIX ACL; empty where it has none."""
    try:
        content = os.getxattr(folder, f"system.posix_acl_{kind}")
    except (OSError, AttributeError):  # none; or a file system, or a system, that knows none
        return []
    return list(struct.iter_unpack("<HHI", content[4:]))


def _without_umask(most: int) -> int:
    """The rights that the umask leaves; where the system does not tell it without changing it, the owner's alone."""
    status = Path("/proc/self/status")
    found = re.search(r"^Umask:\s*(\d+)", status.read_text(), re.MULTILINE) if status.exists() else None
    return most & ~(int(found[1], 8) if found else 0o077)


def unfinished(path: Path) -> Path:
    """A name beside `path` for what this process writes and then moves there; nobody else has the same."""
    name = os.fsencode(path.name)[:100].decode(errors="ignore")  # a name may have 255 bytes, not letters
    return path.with_name(f".{name}.{HOST}.{os.getpid()}.{next(_numbers)}.part")


def is_abandoned(path: Path) -> bool:
    """Whether a file or folder was being written by a process that is gone.

    Of another machine's processes nothing is known from here; theirs is abandoned when nobody touched it for a day.
    """
    found = UNFINISHED.fullmatch(path.name)
    if found is None:
        return False
    if found["host"] == HOST:
        return int(found["pid"]) != os.getpid() and not process_exists(int(found["pid"]))
    try:
        return time.time() - path.lstat().st_mtime > LONG_DEAD_S
    except FileNotFoundError:  # just finished
        return False


def is_unfinished_by_others(path: Path) -> bool:
    """Whether a file is one that no living process of this machine is writing: another machine's may live.

    For whoever knows that nobody writes in the folder any more.
    """
    found = UNFINISHED.fullmatch(path.name)
    return found is not None and (found["host"] != HOST or not process_exists(int(found["pid"])))


def remove_abandoned(folder: Path) -> None:
    """Remove what processes that are gone had not finished writing in a folder, and nothing else."""
    for path in folder.glob(".*.part"):
        if is_abandoned(path):
            with suppress(FileNotFoundError):  # another process removes it, too
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def look_again(folder: Path) -> None:
    """Let this node see what other nodes have put into a folder, or taken away, before something is decided by it.

    A network file system believes for up to a minute what it has listed or has not found. After a change of its own it
    asks the server. Does nothing where there is no such folder.
    """
    for place in (folder, folder.parent, folder):  # that there is no folder may be what it wrongly believes
        probe = unfinished(place / "look")
        try:
            os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        except FileNotFoundError:
            continue
        probe.unlink(missing_ok=True)
        if place == folder:
            return


def aside(path: Path) -> Path:
    """Rename a file or folder that is damaged so that its name says so; the new name. Nothing is lost."""
    number = next(n for n in itertools.count(1) if not os.path.lexists(path.with_name(f"{path.name}.damaged-{n}")))
    return path.rename(path.with_name(f"{path.name}.damaged-{number}"))


def process_exists(process: int) -> bool:
    """Whether this machine has a process of this number, whoever's it is."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


@contextmanager
def naming(path: Path, *aliases: Path) -> Iterator[None]:
    """Let an OSError that names no file, as those of writing, or one of the aliases, name `path`.

    Raises an OSError for a library's error that means a full disk, too.
    """
    try:
        yield
    except OSError as error:
        if error.filename in (None, *map(str, aliases)):
            error.filename = str(path)
        raise
    except RuntimeError as error:  # of torch.save
        if not disk_is_full(error):
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file for writing. It replaces `path`, after fsync, when the block ends without an error.

    After a crash `path` is either the old file or the whole new one.
    """
    temporary = unfinished(path)
    temporary.unlink(missing_ok=True)  # of an earlier process with this one's number
    try:
        with naming(path, temporary):
            with open_file(temporary, "xb") as file:  # exclusively, so through no link
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically. Makes the folder of `path`."""
    with atomic_file(path) as file:
        file.write(content)


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` atomically as indented JSON. Values that JSON does not know become strings."""
    write_atomically(path, (json.dumps(value, indent=2, default=str) + "\n").encode())
