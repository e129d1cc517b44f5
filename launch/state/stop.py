"""What may end a worker early becomes one flag, which the training loop asks for between steps."""

import signal
import time
from pathlib import Path
from types import FrameType

from fsr.lock import FileLock

STOP_FILE_S = 1.0


class StopRequest:
    """True once a signal came, the study's stop file is there, or the sweep that started this worker is gone.

    A context: its handlers are installed inside and put back at the end. Main thread only. SIGUSR2 is what Slurm sends
    some time before the time limit.

    A local sweep lasts as long as its process holds the study's sweep lock. However it ends (Ctrl-C, closed terminal,
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
