"""Opens the files that others may have made, of which each must be a regular one."""

import errno
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeVar

Content = TypeVar("Content")

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

TRIES = 20


def open_regular(file: Path) -> BinaryIO:
    """Open a file for reading; everything that reads data sets and records opens its files here.

    Raises OSError if it cannot be opened or is no regular file: whoever opens a FIFO waits, perhaps for ever.
    """
    kind = stat.S_IFMT(file.stat().st_mode)
    if kind != stat.S_IFREG:
        raise OSError(0, f"it is {_KINDS.get(kind, 'something else')}, not a regular file", str(file))
    return open(file, "rb")


def read_regular(file: Path) -> bytes:
    """The content of a file, opened by `open_regular`."""

    def read() -> bytes:
        with open_regular(file) as stream:
            return stream.read()

    return reread_if_replaced(read)


def reread_if_replaced(read: Callable[[], Content]) -> Content:
    """What `read` makes of a file that it opens; begun anew where another node replaces the file meanwhile.

    NFS then no longer knows the old one (ESTALE), while on one machine it stays readable. Raises what `read` raises.
    """
    for _ in range(TRIES - 1):
        try:
            return read()
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
    return read()
