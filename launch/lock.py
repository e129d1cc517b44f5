"""A lock among processes that dies with its holder."""

import fcntl
from pathlib import Path
from typing import IO


class FileLock:
    """Exclusive among processes (not threads). Has the methods of Optuna's own journal locks.

    Optuna's locks are files that a killed holder leaves behind, so the others wait 30 s and then two of them may
    remove it at once. This one is the kernel's (POSIX record lock): it is free the moment its holder is gone, and the
    holder's forked data loaders do not keep it.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._file: IO[str] | None = None

    def acquire(self) -> bool:
        """Wait for the lock and take it."""
        file = self._open()
        fcntl.lockf(file, fcntl.LOCK_EX)
        self._file = file
        return True

    def try_acquire(self) -> bool:
        """Take the lock if it is free. Not to be called by the holder: closing the file again would free it."""
        file = self._open()
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.close()
            return False
        self._file = file
        return True

    def release(self) -> None:
        """Give the lock back."""
        assert self._file is not None
        self._file.close()
        self._file = None

    def __enter__(self) -> "FileLock":
        self.acquire()
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def _open(self) -> IO[str]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return open(self.path, "a+")
