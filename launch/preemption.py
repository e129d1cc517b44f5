"""What may end a worker early becomes one flag, which the training loop asks for between steps."""

import ctypes
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from launch.lock import FileLock

PR_SET_PDEATHSIG = 1
GRACE_S = 30.0
STOP_FILE_S = 1.0


class StopRequest:
    """True once a signal came, the study's stop file is there, or the sweep that started this worker is gone.

    A context: its handlers are installed inside and put back at the end. Main thread only. SIGUSR2 is what Slurm sends
    some time before the time limit.

    A local sweep goes on while its process holds the study's sweep lock. However it ends (Ctrl-C, closed terminal,
    SIGKILL), the kernel frees the lock, and the workers save and stop.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)

    def __init__(
        self, stop_file: Path | None = None, sweep_lock: FileLock | None = None, sweep_pid: int | None = None
    ) -> None:
        self.signals = 0
        self.near_time_limit = False
        self.by_file = False
        self._stop_file = stop_file
        self._looked = -STOP_FILE_S
        self._sweep_lock = sweep_lock
        self._sweep_pid = sweep_pid

    def __call__(self) -> bool:
        return (
            self.signals > 0
            or self._file_is_there()
            or (self._sweep_lock is not None and self._sweep_is_gone(self._sweep_lock))
        )

    def __enter__(self) -> "StopRequest":
        self._before = {number: signal.signal(number, self._count) for number in self.SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _count(self, number: int, frame: FrameType | None) -> None:
        self.signals += 1
        self.near_time_limit |= number == signal.SIGUSR2

    def _file_is_there(self) -> bool:
        """Whether there is a stop file; looks for it now and then only, because it may lie on a network file system."""
        if self._stop_file is not None and time.monotonic() - self._looked >= STOP_FILE_S:
            self._looked = time.monotonic()
            self.by_file = self._stop_file.exists()
        return self.by_file

    def _sweep_is_gone(self, lock: FileLock) -> bool:
        if lock.holder() != self._sweep_pid:  # another sweep of this study, with workers of its own
            return True
        if not lock.try_acquire():
            return False
        lock.release()
        return True


def die_with_parent() -> None:
    """Ask the kernel (Linux) to kill this process when its parent is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def die_after(process: int, grace_s: float = GRACE_S) -> None:
    """End this process `grace_s` after that one is gone, if it has not ended by itself.

    A training loop asks for the flag between steps, but an evaluation may take many minutes.
    """

    def watch() -> None:
        while exists(process):
            time.sleep(1)
        time.sleep(grace_s)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def exists(process: int) -> bool:
    """Whether there is a process of this number."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
