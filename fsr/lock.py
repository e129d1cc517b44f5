"""A lock among processes that dies with its holder."""

import errno
import fcntl
import os
import platform
import struct
import time
from pathlib import Path

from fsr.errors import UserError
from fsr.files import create, naming
from fsr.system_errors import no_locks, no_right

PASSING = (errno.EINTR, errno.EDEADLK, errno.ESTALE)  # ends by itself: a signal, a chain of waiting, a file replaced
PASSING_S = 30.0


class FileLock:
    """Exclusive among processes (not threads). Has the methods of Optuna's own journal locks.

    Optuna's locks are files that a killed holder leaves behind, so the others wait 30 s and then two of them may
    remove it at once. This one is the kernel's (POSIX record lock): it is free the moment its holder is gone, and the
    holder's forked data loaders do not keep it. The kernel also frees it when the holder closes any other file object
    of the same path, so a holder must not open it again.

    Its file names the holder: process and machine, or without `machine` the process alone.

    Who may only read the folder can neither take the lock nor read its file. Raises UserError where a lock cannot be
    taken at all: without the right to it, or on a file system without locks.
    """

    def __init__(self, path: Path, machine: bool = True) -> None:
        self.path = Path(path)
        self._machine = f" {platform.node()}" if machine else ""
        self._file: int | None = None

    def acquire(self) -> bool:
        """Wait for the lock and take it."""
        return self._take(fcntl.LOCK_EX)

    def try_acquire(self, patience_s: float = 0.0) -> bool:
        """Take the lock if it is free, or becomes free within `patience_s`."""
        deadline = time.monotonic() + patience_s
        while not self._take(fcntl.LOCK_EX | fcntl.LOCK_NB):
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)
        return True

    def take(self, doing: str, patience_s: float = 1.0) -> None:
        """Take the lock to do something; raises UserError that names the process which holds it longer than that."""
        if not self.try_acquire(patience_s):
            process, machine = self._written()
            where = f", on {machine}" if machine else ""
            raise UserError(f"process {process or '(unknown)'} is {doing} already{where}; wait until it has ended")

    def release(self) -> None:
        """Give the lock back, if it is held."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._file is not None

    def is_held(self) -> bool:
        """Whether another process holds the lock, asked without taking it. Not to be called by the holder.

        False also where the file cannot be read: who may not read it cannot know.
        """
        question = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        try:
            with open(self.path, "rb") as file:
                answer = fcntl.fcntl(file, fcntl.F_GETLK, question)
        except (FileNotFoundError, PermissionError):
            return False
        return bool(struct.unpack("hhqqi", answer)[0] != fcntl.F_UNLCK)

    def holder(self) -> int | None:
        """Process that took the lock last, if it is known. Not to be called by the holder."""
        number = self._written()[0]
        return int(number) if number.isdecimal() else None

    def host(self) -> str:
        """The machine of that process. Not to be called by the holder."""
        return self._written()[1] or "an unknown machine"

    def _written(self) -> tuple[str, str]:
        """The number of the process that took the lock last, and its machine; empty where they are not known."""
        try:
            number, _, host = self.path.read_text(errors="replace").partition(" ")
        except (FileNotFoundError, PermissionError):
            return "", ""
        return number, host

    def __enter__(self) -> "FileLock":
        self.acquire()
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def _take(self, how: int) -> bool:
        """Take the lock, unless it is another's and `how` does not wait; one that is held already stays held."""
        deadline = time.monotonic() + PASSING_S
        while self._file is None:
            file = self._open()
            try:
                fcntl.lockf(file, how)
                with naming(self.path):
                    os.ftruncate(file, 0)
                    os.write(file, f"{os.getpid()}{self._machine}".encode())
                self._file, file = file, -1
            except OSError as error:
                if error.filename:  # it is locked, and its holder cannot be written down
                    raise
                if error.errno in (errno.EAGAIN, errno.EACCES):
                    return False
                if error.errno not in PASSING or time.monotonic() >= deadline:
                    raise UserError(no_locks(self.path, error)) from error
                time.sleep(0.05)
            finally:
                if file >= 0:
                    os.close(file)
        return True

    def _open(self) -> int:
        # As few calls as can be: a claim tries the lock of every running trial while all other workers wait.
        try:
            return create(self.path, os.O_RDWR | os.O_CREAT, lock=True)
        except PermissionError:
            raise UserError(no_right(self.path, "take another --runs folder")) from None
