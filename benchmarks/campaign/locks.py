"""Locks between simulated processes, in the place of the kernel's, which do not exclude within one real process."""

import fcntl
import os
from collections import deque
from collections.abc import Callable

from benchmarks.campaign.clock import Clock, Process
from fsr.lock import FileLock

HELD = -1  # what a FileLock has in the place of its open file


class Locks:
    """Who holds which lock. As with the kernel's, a process that holds one may take it again, and frees all it held
    when it dies; who waits gets it in the order of asking."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._holders: dict[str, Process | None] = {}  # None: the user's own command
        self._waiting: dict[str, deque[Callable[[], None]]] = {}

    def take(self, lock: FileLock, how: int) -> bool:
        """Stands in for `FileLock._take`."""
        path, process = os.fspath(lock.path), self._clock.running
        while path in self._holders and self._holders[path] is not process:
            if how & fcntl.LOCK_NB:
                return False
            assert process is not None, f"{path} is held while the user's command needs it"
            self._waiting.setdefault(path, deque()).append(process.ticket())
            process.wait(None)
        self._holders[path] = process
        lock._file = HELD
        return True

    def release(self, lock: FileLock) -> None:
        """Stands in for `FileLock.release`."""
        if lock._file is not None:
            lock._file = None
            path = os.fspath(lock.path)
            if self._holders.get(path, self) is self._clock.running:
                self._free(path)

    def is_held(self, lock: FileLock) -> bool:
        """Stands in for `FileLock.is_held`."""
        return self._holders.get(os.fspath(lock.path), self._clock.running) is not self._clock.running

    def free(self, process: Process) -> None:
        """The process is gone."""
        for path in [path for path, holder in self._holders.items() if holder is process]:
            self._free(path)

    def _free(self, path: str) -> None:
        del self._holders[path]
        for wake in self._waiting.pop(path, ()):  # all: one of them may be killed before its turn
            self._clock.at(self._clock.now, wake)
