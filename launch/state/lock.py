"""A lock among processes that dies with its holder."""

import fcntl
import os
import time
from pathlib import Path

from fsr.errors import UserError


class FileLock:
    """Exclusive among processes (not threads). Has the methods of Optuna's own journal locks.

    Optuna's locks are files that a killed holder leaves behind, so the others wait 30 s and then two of them may
    remove it at once. This one is the kernel's (POSIX record lock): it is free the moment its holder is gone, and the
    holder's forked data loaders do not keep it. The kernel also frees it when the holder closes any other file object
    of the same path, so a holder must not open it again.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
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
            raise UserError(f"process {self.holder()} is {doing} already; wait until it has ended")

    def release(self) -> None:
        """Give the lock back, if it is held."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._file is not None

    def holder(self) -> int | None:
        """Process that took the lock last. Not to be called by the holder."""
        try:
            return int(self.path.read_text())
        except (FileNotFoundError, ValueError):
            return None

    def __enter__(self) -> "FileLock":
        self.acquire()
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def _take(self, how: int) -> bool:
        assert self._file is None
        file = self._open()
        try:
            fcntl.lockf(file, how)
        except (BlockingIOError, PermissionError):
            os.close(file)
            return False
        os.ftruncate(file, 0)
        os.write(file, str(os.getpid()).encode())
        self._file = file
        return True

    def _open(self) -> int:
        # As few calls as can be: a claim tries the lock of every running trial while all other workers wait.
        how = os.O_RDWR | os.O_CREAT
        try:
            return os.open(self.path, how, 0o666)
        except FileNotFoundError:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(self.path, how, 0o666)
