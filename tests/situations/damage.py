"""Kinds of damage to a file."""

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path


def write(make: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """The damage that makes a new content of the old one."""

    def damage(file: Path) -> None:
        content = file.read_bytes() if file.is_file() else b'{"a": 1}\n'
        remove(file)
        file.write_bytes(make(content))

    return damage


def replace(make: Callable[[Path], object]) -> Callable[[Path], None]:
    """The damage that puts something else than a file in its place."""

    def damage(file: Path) -> None:
        remove(file)
        make(file)

    return damage


def remove(path: Path) -> None:
    """Remove a file, link or folder, if it is there; its parent is there afterwards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def bind(path: Path) -> None:
    """A Unix socket."""
    here = os.getcwd()
    try:
        os.chdir(path.parent)  # its name must be short
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


CONTENTS: dict[str, Callable[[Path], None]] = {
    "empty": write(lambda old: b""),
    "torn": write(lambda old: old[: max(1, len(old) * 3 // 5)]),
    "zeros": write(lambda old: bytes(max(64, len(old)))),
    "zeros at its end": write(lambda old: old[: len(old) // 2] + bytes(len(old) - len(old) // 2)),
    "not UTF-8": write(lambda old: b'{"caf\xe9": "\xff\xfe", ' + old[1:]),
    "a list": write(lambda old: b'[1, "two", null]\n'),
    "null": write(lambda old: b"null\n"),
    "a number": write(lambda old: b"12345\n"),
    "another object": write(lambda old: b'{"colour": "red", "size": [1, 2]}\n'),
    "nested too deeply": write(lambda old: b"[" * 100_000),
}
PLACES: dict[str, Callable[[Path], None]] = {
    "a folder": replace(Path.mkdir),
    "a pipe": replace(os.mkfifo),
    "a dangling link": replace(lambda path: path.symlink_to("nowhere/at/all")),
    "a link to itself": replace(lambda path: path.symlink_to(path)),
    "a device": replace(lambda path: path.symlink_to("/dev/zero")),
}
SOCKET = {"a socket": replace(bind)}
UNREADABLE = {"without rights": lambda path: path.chmod(0)}
DAMAGES = CONTENTS | PLACES
