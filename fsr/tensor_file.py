"""Files of tensors, as `torch.save` writes them, with a checksum that is verified before anything in them is parsed.

torch writes a ZIP archive. Its comment (`unzip -z`) is the CRC-32 of everything before it, so any program that reads
torch's files reads ours.
"""

import argparse
import errno
import pathlib
import pickle
import re
import types
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from fsr.errors import unreadable
from fsr.regular_file import open_regular, reread_if_replaced

# The archive's own checksums, one an entry, are read by nobody, not even by torch.load, and take longer than writing.
torch.serialization.set_crc32_options(False)

# What the programs of this field save beside tensors. To make one runs nothing, whatever it is made of.
_numpy = np._core.multiarray  # type: ignore[attr-defined]  # where pickles of NumPy 2 find these functions
HARMLESS: list[Any] = [
    argparse.Namespace,
    types.SimpleNamespace,
    *((pathlib.PosixPath, f"{module}.PosixPath") for module in ("pathlib", "pathlib._local")),
    *((_numpy.scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((_numpy._reconstruct, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    np.ndarray,
    np.dtype,
    *(type(np.dtype(kind)) for kind in (np.float64, np.float32, np.float16, np.int64, np.int32, np.uint8, np.bool_)),
]
_NO_COMMENT = b"\0\0"  # the length of the comment, with which a ZIP archive without one ends
_COMMENT = re.compile(rb"\x12\x00fsr crc32 ([0-9a-f]{8})")
_COMMENT_BYTES = 20
_BLOCK = 1 << 22  # bytes


def write_tensors(content: dict[str, Any], file: IO[bytes]) -> None:
    """Write tensors and plain values to an empty file that is open for writing, and their checksum."""
    summing = _SummingFile(file)
    torch.save(content, cast(IO[bytes], summing))
    comment = b"fsr crc32 %08x" % summing.crc32
    file.seek(-len(_NO_COMMENT), 2)
    file.write(len(comment).to_bytes(2, "little") + comment)


def read_tensors(path: Path, what: str, device: torch.device | str = "cpu") -> tuple[Any, bool]:
    """What a file of tensors holds, on `device`, and whether it has a checksum: other programs' files have none.

    It is of torch's or safetensors' format, whatever its name. Nothing but tensors, plain values and HARMLESS types is
    unpickled. Raises UserError, which calls the file `what`, if it is missing,
    damaged, or holds anything else.
    """
    with _one_sentence(path, what):
        return reread_if_replaced(lambda: _read_once(path, device))


def told_in(path: Path) -> dict[str, str]:
    """What a file that `read_tensors` has read tells beside its tensors, in safetensors' format; else nothing."""
    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except SafetensorError:
        return {}


def _read_once(path: Path, device: torch.device | str) -> tuple[Any, bool]:
    with open_regular(path) as file:
        has_checksum = _verify(file)
        file.seek(0)
        is_safetensors = file.read(9)[8:] == b"{"
    with _only_damage(), torch.serialization.safe_globals(HARMLESS), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a TorchScript archive, which is refused in the next moment
        if is_safetensors:
            return load_file(path, str(device)), False
        return torch.load(path, map_location=device, weights_only=True), has_checksum


@contextmanager
def _one_sentence(path: Path, what: str) -> Iterator[None]:
    """Raise a UserError of whatever reading a file raises."""
    try:
        yield
    except (OSError, _DamagedError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise unreadable(error)(f"{what} {path} cannot be read: {reason or type(error).__name__}") from error


@contextmanager
def _only_damage() -> Iterator[None]:
    """Raise _DamagedError of whatever parsing a file raises that can be opened: that is of many kinds, OSError too."""
    try:
        yield
    except pickle.UnpicklingError as error:  # torch goes on to say how to load it nevertheless
        kind = str(error).partition("GLOBAL ")[2].split(" ")[0]
        held = f"an object of {kind}" if kind else "something else than tensors and plain values"
        raise _DamagedError(f"it holds {held}, or is damaged; save the network's state_dict() alone") from error
    except EOFError as error:
        raise _DamagedError("it is empty or cut") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ESTALE, errno.ENOENT):  # replaced, or moved, meanwhile
            raise
        raise _DamagedError(next(iter(str(error).splitlines()), "") or type(error).__name__) from error


class _DamagedError(Exception):
    """What is wrong with the content of a file."""


class _SummingFile:
    """A file that is written through this, and the CRC-32 of what was written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.crc32 = 0

    def write(self, data: memoryview) -> int:
        self.crc32 = zlib.crc32(data, self.crc32)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def _verify(file: IO[bytes]) -> bool:
    """Whether a file has a checksum. Raises _DamagedError if it is not that of its content."""
    end = max(0, file.seek(0, 2) - _COMMENT_BYTES)
    file.seek(end)
    comment = _COMMENT.fullmatch(file.read())
    if comment is None:
        return False
    file.seek(0)
    crc32, block = 0, memoryview(bytearray(_BLOCK))
    while end > 0:
        count = file.readinto(block[: min(_BLOCK, end)])  # type: ignore[attr-defined]  # IO[bytes] declares it nowhere
        if not count:
            raise _DamagedError("it became shorter while it was read")
        crc32, end = zlib.crc32(block[:count], crc32), end - count
    if zlib.crc32(_NO_COMMENT, crc32) != int(comment[1], 16):
        raise _DamagedError("it is damaged, for its content does not have its checksum")
    return True
