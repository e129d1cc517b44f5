"""The trials of a study that have ended, packed: a line each, which is read when it is asked for.

A journal tells a trial in some twenty records, and who opens it would read those of all trials. So whoever finds that
many have ended since, packs them: appends their lines to a file that is never changed otherwise, and replaces the
index, which tells where the lines are and from which record of the journal on to read. The journal stays as it is, and
is the truth: a packed file that does not fit it, or is damaged, is left alone and made anew.
"""

import base64
import hashlib
import json
import os
import re
import secrets
import zlib
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial
from typing_extensions import TypedDict

from fsr.files import open_file, write_atomically
from fsr.json_file import DamagedError, parse_json, read_whole, typed
from fsr.lock import FileLock
from launch.state.trial_records import Record, record_of, trial_of

PACKED = "packed"  # beside the journal
TOGETHER = 100  # trials whose lines are parsed at once, so that they share the names of their fields in memory
LINES = re.compile(r"[0-9a-f]{8}\.lines")


class Index(TypedDict):
    """What the index tells of a study, as it was at one record of its journal."""

    offset: int
    """Bytes of the journal before that record."""
    records: int
    """Records before it."""
    mark: str
    """What tells the journal from another one (`JournalFile.mark`)."""
    lines: str
    """Name of the file of the lines."""
    size: int
    """Its bytes; what lies behind them was never finished."""
    distributions: list[str]
    """The distributions that shortened records tell by their number."""
    name: str
    """The study's."""
    directions: list[int]
    user_attrs: dict[str, Any]
    system_attrs: dict[str, Any]
    unfinished: list[dict[str, Any]]
    """The trials that have not ended, as shortened records with their `number`."""
    codes: dict[str, int]
    """By code version, the trials that it finished."""
    repeats: list[int]
    """Numbers of the repeats."""
    ranges: dict[str, str]
    """By name of a parameter, the distribution that it had first."""
    arrays: dict[str, str]
    """By name, an array in base64: `where` the line of trial n begins (-1 without one), `states`, `values`; `tried` are
    the sorted keys of settings that did not fail."""


ARRAYS: dict[str, type[np.generic]] = {"where": np.int64, "states": np.uint8, "values": np.float64, "tried": np.int64}


class StaleError(Exception):
    """The packed trials are damaged, or no longer those that the index told of."""


class PackedTrials:
    """The packed trials of one journal."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._index_file = folder / "index.json"
        self._lines: Path | None = None
        self._size = 0
        self.records = 0
        """Records of the journal that the index tells of."""
        self._distributions: list[str] = []
        self.where: NDArray[np.int64] = np.empty(0, np.int64)
        """By number, where the line of a trial begins; -1 without one."""

    def lock(self) -> FileLock:
        """Held while trials are packed."""
        return FileLock(self._folder / "lock")

    def read(self) -> tuple[Index, dict[str, NDArray[Any]]] | None:
        """The index and its arrays; None where there is none that is sound."""
        try:
            content = read_whole(self._index_file)
            head, _, body = content.partition(b"\n")
            if head.decode("ascii", "replace") != hashlib.sha256(body).hexdigest():
                return None
            index = parse_json(body, Index, str(self._index_file))
            # What is appended there must be this folder's own file, whoever wrote the index.
            if not LINES.fullmatch(index["lines"]) or (self._folder / index["lines"]).is_symlink():
                return None
            arrays = {name: np.frombuffer(base64.b64decode(index["arrays"][name]), ARRAYS[name]) for name in ARRAYS}
        except (DamagedError, OSError, KeyError, ValueError):
            return None
        return index, arrays

    def take(self, index: Index, where: NDArray[np.int64]) -> None:
        """Go by this index from now on."""
        self._lines = self._folder / index["lines"]
        self._size, self._distributions, self.where = index["size"], index["distributions"], where
        self.records = index["records"]

    def forget(self) -> None:
        """Go by none."""
        self._lines, self._size, self.records = None, 0, 0
        self._distributions, self.where = [], np.empty(0, np.int64)

    def remove(self) -> None:
        """Remove the index: the journal is not what it was."""
        self._index_file.unlink(missing_ok=True)

    def has(self, number: int) -> bool:
        """Whether a trial is packed."""
        return number < len(self.where) and self.where[number] >= 0

    def trials(self, numbers: Iterable[int]) -> list[FrozenTrial]:
        """Packed trials by their numbers. Raises StaleError."""
        found: list[FrozenTrial] = []
        rest = iter(numbers)
        try:
            while some := list(islice(rest, TOGETHER)):
                if self._lines is None:
                    raise StaleError
                with open(self._lines, "rb") as file:
                    content = b",".join(self._content(file, number) for number in some)
                records = json.loads(b"[" + content + b"]")
                for record, number in zip(records, some, strict=True):
                    found.append(trial_of(in_full(record, self._distributions), number, number))
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise StaleError from error
        return found

    def _content(self, file: BinaryIO, number: int) -> bytes:
        file.seek(self.where[number])
        line = file.readline()
        if line[-1:] != b"\n" or line[:8] != checksum(line[9:-1]):
            raise StaleError
        return line[9:-1]

    def pack(self, told: dict[str, Any], arrays: dict[str, NDArray[Any]], ended: list[FrozenTrial]) -> None:
        """Append the lines of trials that have ended, and replace the index. `told` is what it tells beside them.

        The lock must be held; raises OSError.
        """
        lines = self._lines or self._folder / f"{secrets.token_hex(4)}.lines"
        place = {text: number for number, text in enumerate(self._distributions)}
        where, content, offset = arrays["where"].copy(), [], self._size
        where[: len(self.where)] = self.where
        for trial in ended:
            line = line_of(record_of(trial), place)
            where[trial.number] = offset
            offset += len(line)
            content.append(line)
        with open_file(lines, "ab"):
            pass
        with open(lines, "r+b") as file:
            file.truncate(self._size)
            file.seek(self._size)
            file.write(b"".join(content))
            file.flush()
            os.fsync(file.fileno())
        unfinished = [shortened(record, place) for record in told["unfinished"]]
        columns = arrays | {"where": where}
        coded = {name: base64.b64encode(columns[name].astype(kind)).decode() for name, kind in ARRAYS.items()}
        own = {"lines": lines.name, "size": offset, "distributions": list(place), "arrays": coded}
        index = typed(told | own | {"unfinished": unfinished}, Index)
        body = json.dumps(index, separators=(",", ":")).encode()
        write_atomically(self._index_file, hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        if self._lines is None:  # what others had packed before did not fit the journal
            for other in self._folder.glob("*.lines"):
                if other != lines:
                    other.unlink(missing_ok=True)
        self.take(index, where)


def line_of(record: Record, place: dict[str, int]) -> bytes:
    """A packed trial: checksum and shortened record."""
    content = json.dumps(shortened(record, place), separators=(",", ":")).encode()
    return checksum(content) + b" " + content + b"\n"


def shortened(record: Record, place: dict[str, int]) -> Record:
    """A record whose distributions are numbers of `place`, which learns new ones: all trials have the same few."""
    texts = record["distributions"]
    return record | {"distributions": {name: place.setdefault(text, len(place)) for name, text in texts.items()}}


def in_full(record: Record, distributions: list[str]) -> Record:
    """The record that was shortened."""
    return record | {"distributions": {name: distributions[text] for name, text in record["distributions"].items()}}


def checksum(content: bytes) -> bytes:
    """CRC-32 in eight hexadecimal digits."""
    return b"%08x" % zlib.crc32(content)
