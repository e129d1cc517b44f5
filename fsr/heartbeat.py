"""The heartbeat of this process: a small file that says what it is doing, and how long that may stay so.

Whoever starts a process may name the file (`write_to`) and watch it; without one the heartbeat is nothing. The work
says where it stands: `between_steps` of a loop, `beat` in evaluations and other long work, `idle` where it
waits for what may take any time. A hung file system hangs the writing as well, and then the silence tells the truth.
"""

import json
import math
import os
import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from fsr.errors import UserError
from fsr.json_file import DamagedError, parse_json

FSR_SILENCE_S = "FSR_SILENCE_S"
"""The variable that holds the least seconds of silence that count as hung."""
DEFAULT_SILENCE_S = 600.0
MEDIANS = 20  # steps' worth of silence that a rank of slow steps may keep
SLOW = 3  # times the patience: starting, compiling, the first batch of an evaluation, saving
SLOW_S = 30.0  # and no less than this: importing torch takes its time, however short a silence is allowed
SLOW_STEPS = 3  # at the start, which compile and choose algorithms
LAST_STEPS = 100  # of which the median is taken
WRITE_EVERY_S = 5.0
LENGTH = 512  # bytes of the file, so that a shorter sign covers a longer one


@dataclass(frozen=True, kw_only=True)
class Sign:
    """What the file says."""

    count: int
    """Of the signs of life so far. Any change of the file is one."""
    doing: str
    patience_s: float | None
    """How long the file may stay as it is; None: for ever."""
    place: str
    """Where the process is, in the words of whoever named the file."""

    @classmethod
    def of(cls, content: bytes) -> "Sign | None":
        """The sign that a file holds; None where it is just being written, or holds none."""
        try:
            return parse_json(content, cls, "the heartbeat")
        except DamagedError:
            return None


def silence_s() -> float:
    """Least seconds of silence that count as hung. Raises UserError if FSR_SILENCE_S is not such a number."""
    text = os.environ.get(FSR_SILENCE_S, str(DEFAULT_SILENCE_S))
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 1 <= seconds < math.inf:
        raise UserError(f"{FSR_SILENCE_S} must be a number of seconds from 1, got {text!r}")
    return seconds


class Heartbeat:
    """The signs of life of one process. Does nothing before `write_to`."""

    def __init__(self) -> None:
        self._file: Path | None = None
        self._place = ""
        self._minimum_s = DEFAULT_SILENCE_S
        self._count = 0
        self._steps = 0
        self._durations: deque[float] = deque(maxlen=LAST_STEPS)
        self._stepped: float | None = None
        self._written = -math.inf

    def write_to(self, file: Path, place: str) -> None:
        """Leave signs of life in this file from now on. Raises UserError for a wrong FSR_SILENCE_S."""
        self._file, self._place, self._minimum_s = file, place, silence_s()

    def start(self, doing: str) -> None:
        """Other work begins: what was known of its steps counts no more."""
        self._steps, self._stepped = 0, None
        self._durations.clear()
        self.beat(doing, slow=True)

    def between_steps(self, ask: Callable[[], bool]) -> Callable[[], bool]:
        """The question `ask` for a loop that asks it between two steps or batches: each time it asks is a sign."""

        def asked() -> bool:
            now = time.monotonic()
            if self._stepped is not None:
                self._durations.append(now - self._stepped)
                self._steps += 1
            self._stepped = now
            doing = f"step {self._steps + 1} since its start"
            self._sign(doing, self._patience_s(self._steps < SLOW_STEPS), now=self._steps in (0, SLOW_STEPS))
            return ask()

        return asked

    def beat(self, doing: str, *, slow: bool = False) -> None:
        """It goes on; with `slow` the next sign may take several times as long, and this one is written at once."""
        self._sign(doing, self._patience_s(slow), now=slow)

    def idle(self, doing: str) -> None:
        """It waits for something that may take any time."""
        self._sign(doing, None, now=True)

    def _patience_s(self, slow: bool) -> float:
        median = statistics.median(self._durations) if self._durations else 0.0
        patience_s = max(self._minimum_s, MEDIANS * median)
        return max(SLOW * patience_s, SLOW_S) if slow else patience_s

    def _sign(self, doing: str, patience_s: float | None, *, now: bool) -> None:
        self._count += 1
        elapsed = time.monotonic() - self._written
        if self._file is None or not (now or elapsed >= min(WRITE_EVERY_S, self._minimum_s / 10)):
            return
        sign = Sign(count=self._count, doing=doing, patience_s=patience_s, place=self._place)
        content = json.dumps(asdict(sign)).encode().ljust(LENGTH)
        try:
            # In place, which a full disk allows; closed each time, or a network file system might keep it to itself.
            file = os.open(self._file, os.O_WRONLY | os.O_CREAT, 0o666)
            try:
                os.pwrite(file, content, 0)
            finally:
                os.close(file)
        except OSError:
            return  # a sign that cannot be left is silence, and whatever is wrong ends the work by itself
        self._written = time.monotonic()


HEARTBEAT = Heartbeat()
"""That of this process."""
