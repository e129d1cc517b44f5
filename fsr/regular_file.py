"""Opens the files that others may have made, of which each must be a regular one."""

import stat
from pathlib import Path
from typing import BinaryIO

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


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
    with open_regular(file) as stream:
        return stream.read()
