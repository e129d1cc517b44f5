"""Simulated time: a queue of events, and processes that take turns, so that exactly one of them runs at any moment.

A process is a thread that stops wherever real code would sleep; nobody waits for a real clock. It has a number,
environment variables and locks of its own, as a process of the system has, and can be killed wherever it waits.
"""

import heapq
import itertools
import os
import threading
from collections.abc import Callable, MutableMapping
from datetime import datetime, tzinfo
from typing import Any

# Unix seconds, years from now: the real times of files that the simulation does not date itself lie before all of it.
START = 2_000_000_000.0


class Killed(BaseException):
    """SIGKILL: nothing that the program does afterwards counts, and no `except Exception` sees it."""


class Clock:
    """What is to happen when. Its methods are called by whoever runs: a process, or an event."""

    def __init__(self, check: Callable[[], None] = lambda: None) -> None:
        self.now = START
        self.events = 0
        self.running: Process | None = None
        self._check = check
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._numbers = itertools.count()

    def at(self, when: float, action: Callable[..., None], *arguments: object) -> None:
        """Let something happen then, or now if that is past; at one moment, in the order of these calls."""
        heapq.heappush(self._queue, (max(when, self.now), next(self._numbers), action, arguments))

    def run(self, until: float, done: Callable[[], bool]) -> None:
        """Let everything happen until it is done, or until that time. What a process raises is raised here."""
        while self._queue and not done():
            when, _, action, arguments = heapq.heappop(self._queue)
            if when > until:
                self.now = until
                return
            self.now = when
            self.events += 1
            action(*arguments)
            self._check()

    def time(self) -> float:
        """Stands in for `time.time` and `time.monotonic`."""
        return self.now

    def calendar(self) -> type[datetime]:
        """Stands in for `datetime.datetime`."""
        clock = self

        class Kind(type):
            def __instancecheck__(cls, value: object) -> bool:
                return isinstance(value, datetime)

        class Calendar(datetime, metaclass=Kind):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
                return datetime.fromtimestamp(clock.now, tz)

        return Calendar

    def sleep(self, seconds: float) -> None:
        """Stands in for `time.sleep`, of the process that runs."""
        assert self.running is not None, "only processes sleep"
        self.running.wait(self.now + seconds)


class Process:
    """A process: a thread that runs only when it is its turn."""

    _ids = itertools.count(1_000_000)  # above those of real processes

    def __init__(self, clock: Clock, variables: MutableMapping[str, str], work: Callable[[], None]) -> None:
        self.alive = True
        self.pid = next(self._ids)
        self.variables = variables
        self._clock = clock
        self._work = work
        self._error: BaseException | None = None
        self._thrown: BaseException | None = None
        self._waits = 0
        self._interruptible = False
        self._turn, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._live, daemon=True)

    def start(self) -> None:
        """Let it begin now (an event)."""
        if self.alive:
            self._thread.start()
            self._resume()

    def wait(self, until: float | None, interruptible: bool = False) -> bool:
        """Let that time come, for the process itself; for ever without one. Whether it came: someone may interrupt."""
        self._raise_thrown()
        self._waits += 1
        self._interruptible = interruptible
        if until is not None:
            self._clock.at(until, self._wake, self._waits)
        self._back.release()
        self._turn.acquire()
        self._waits += 1
        self._interruptible = False
        self._raise_thrown()
        return until is not None and self._clock.now >= until

    def interrupt(self) -> None:
        """End its waiting, if that may be interrupted (an event)."""
        if self.alive and self._interruptible:
            self._resume()

    def throw(self, error: BaseException) -> None:
        """Let its waiting, now and from now on, end with this error (an event)."""
        if self.alive and self._thread.ident is None:
            self.alive = False
        elif self.alive:
            self._thrown = error
            self._resume()

    def renew(self) -> None:
        """It stands for the next process of its job."""
        self.pid = next(self._ids)

    def ticket(self) -> Callable[[], None]:
        """An event that ends the waiting which the process is about to begin, and no other."""
        number = self._waits + 1
        return lambda: self._wake(number)

    def _wake(self, number: int) -> None:
        if self.alive and number == self._waits:
            self._resume()

    def _raise_thrown(self) -> None:
        if self._thrown is not None:
            raise self._thrown

    def _resume(self) -> None:
        """Let it run until it waits or ends. Only events do so, so no process runs inside another."""
        clock, real = self._clock, os.environ
        assert clock.running is None
        clock.running = self
        os.environ = self.variables  # noqa: B003  # as if it were another process
        self._turn.release()
        self._back.acquire()
        os.environ = real  # noqa: B003
        clock.running = None
        if not self.alive:
            self._thread.join()
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _live(self) -> None:
        self._turn.acquire()
        try:
            self._work()
        except Killed:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self.alive = False
            self._back.release()
