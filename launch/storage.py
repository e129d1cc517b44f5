"""Optuna's storage of a study: a journal file that survives writers killed in mid-append."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from optuna.storages.journal import BaseJournalBackend, JournalStorage

from launch.lock import FileLock


class Lock(Protocol):
    """What FileLock and Optuna's JournalFileOpenLock and JournalFileSymlinkLock have in common."""

    def acquire(self) -> bool:
        """Wait for the lock and take it."""

    def release(self) -> None:
        """Give the lock back."""


class JournalFile(BaseJournalBackend):
    """One JSON record a line; a record counts once its newline is there.

    Optuna's own file backend appends behind what a killed writer left, and the line that this makes ruins the study
    (optuna/optuna#5138). Here an unfinished tail is ignored by readers and cut off by the next writer, so the file
    stays one that Optuna's backend and dashboard read as well.
    """

    def __init__(self, path: Path, lock: Lock) -> None:
        self._path = path
        self._lock = lock
        self._offsets = [0]  # where record n begins, for all records seen so far
        path.touch()

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """All whole records from number `log_number_from` on."""
        first = min(log_number_from, len(self._offsets) - 1)
        for number, line in enumerate(self._read(self._offsets[first]).splitlines(keepends=True), start=first):
            if number + 1 == len(self._offsets):
                self._offsets.append(self._offsets[number] + len(line))
            if number >= log_number_from:
                yield json.loads(line)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add records behind the last whole one."""
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        self._lock.acquire()
        try:
            with open(self._path, "r+b") as file:
                file.truncate(_end_of_records(file.fileno()))
                file.seek(0, os.SEEK_END)
                file.write(lines.encode())
                file.flush()
                os.fsync(file.fileno())
        finally:
            self._lock.release()

    def _read(self, offset: int) -> bytes:
        """The whole records from byte `offset` on.

        Readers take no lock, so a writer may cut off and write over an unfinished tail while it is being read: only
        what reads the same twice is taken.
        """
        with open(self._path, "rb", buffering=0) as file:
            records = None
            while True:
                file.seek(offset)
                again = file.read()
                if records is not None and again.startswith(records):
                    return records
                records = again[: again.rfind(b"\n") + 1]


def _end_of_records(file: int) -> int:
    """Size of the file without an unfinished last line."""
    end = os.fstat(file).st_size
    while end > 0:
        start = max(0, end - 4096)
        newline = os.pread(file, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def open_storage(folder: Path) -> JournalStorage:
    """The storage of the study whose folder this is."""
    path = folder / "journal.log"
    return JournalStorage(JournalFile(path, FileLock(path.with_name("journal.log.lock"))))
