"""The attempts on a run: who worked on it, from when to when, and what ended each attempt."""

import os
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from fsr.files import look_again, write_json
from fsr.json_file import DamagedError, read_json
from fsr.run import Run

Cause = Literal[
    "finished",
    "pruned",
    "preempted",
    "time limit",
    "node",
    "out of memory",
    "killed",
    "exception",
    "disk full",
    "hung",
    "not finite",
    "cancelled",
]

LARGEST = 1e12  # of steps, processes and Unix seconds
COSTS = ("useful", "repeated", "lost")  # what becomes of the time that was worked on a run


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One process's work on a run. Times are Unix seconds."""

    job: str
    """Slurm's id of the job or array task (`12_3`), or `local`."""
    restart: int
    """How often Slurm had requeued the job before."""
    node: str
    pid: int
    """Process of rank 0."""
    ranks: int
    """Processes of the attempt. Attempts on one run may differ in it: the global batch is the configuration's."""
    started: float
    first_step: int | None = None
    """Where it started or resumed; None if it died before its first step."""
    reached: int | None = None
    """The last step that is known to be done."""
    ended: float | None = None
    cause: Cause | None = None
    """None while it works, or if it died and nobody has found its cause yet."""
    detail: str = ""
    place: str = ""
    """Where the program raised what ended it, as `fsr/train.py:88`."""

    def __post_init__(self) -> None:
        for name in ("restart", "pid", "started", "first_step", "reached", "ended"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < LARGEST:
                raise ValueError(f"{name} must be from 0 to {LARGEST:g}, got {value:g}")
        if not 1 <= self.ranks < LARGEST:
            raise ValueError(f"ranks must be at least 1, got {self.ranks}")

    @property
    def seconds(self) -> float:
        """How long it took; until now if it still works. Never negative, though two machines' clocks may differ."""
        return round(max(0.0, (self.ended or time.time()) - self.started), 1)


class AttemptLog:
    """The attempts on one run, in `attempts.json` of its folder. Only the holder of the run's lock may write it."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.file = run.folder / "attempts.json"
        """Where they are written down."""

    def attempts(self) -> list[Attempt]:
        """All attempts, oldest first. Raises DamagedError if the file holds something else."""
        try:
            return read_json(self.file, list[Attempt])
        except FileNotFoundError:
            return []
        except DamagedError:
            if not self._is_newer():
                raise
            return read_json(self.file, list[Attempt], newer=True)

    def begin(self, job: str, restart: int, node: str, ranks: int) -> None:
        """Record that this process starts to work on the run."""
        look_again(self._run.folder)  # else attempts of another node might be missed, and lost
        # Not rounded: it is compared with the time of the sweep that sent the worker.
        attempt = Attempt(job=job, restart=restart, node=node, pid=os.getpid(), ranks=ranks, started=time.time())
        self._write([*self.attempts(), attempt])

    def end(self, cause: Cause, detail: str = "", place: str = "") -> None:
        """Record how this process's attempt ended."""
        self._close(cause, detail, time.time(), place)

    def close_lost(self, find_cause: Callable[[Attempt], tuple[Cause, str]]) -> bool:
        """Whether the last attempt had died without a cause; then record the cause that is found for it."""
        look_again(self._run.folder)
        attempts = self.attempts()
        lost = bool(attempts) and attempts[-1].cause is None
        if lost:
            self._close(*find_cause(attempts[-1]), self._last_sign_of_life(attempts[-1]))
        return lost

    def gpu_seconds(self, failed: bool = False) -> dict[str, float]:
        """The `cost_shares` of all attempts together, in rank-seconds: useful, repeated, lost."""
        shares = [share for _, share in cost_shares(self.attempts(), failed)]
        return {name: round(sum(share[name] for share in shares), 1) for name in COSTS}

    def _is_newer(self) -> bool:
        """Whether a later version may have added to the attempts: it writes all fields of this one, too, so that an
        unknown one in the place of a known one is a damaged name."""
        known = {field.name for field in fields(Attempt)}
        return all(known <= written.keys() for written in read_json(self.file, list[dict[str, Any]]))

    def _close(self, cause: Cause, detail: str, ended: float, place: str = "") -> None:
        *before, last = self.attempts()
        first_step = self._first_step(last)
        steps = [record["step"] for record in self._run.metrics()] if first_step is not None else []
        reached = max([first_step, *steps]) if first_step is not None else None
        closed = replace(
            last,
            cause=cause,
            detail=detail,
            place=place,
            ended=max(ended, last.started),
            first_step=first_step,
            reached=reached,
        )
        self._write([*before, closed])

    def _first_step(self, attempt: Attempt) -> int | None:
        """The step at which a process started, from the provenance that the run itself writes."""
        starts = self._run.starts()
        own = [start for start in starts if start["pid"] == attempt.pid and start["host"] == platform.node()]
        own = own or [start for start in starts if start["pid"] == attempt.pid]
        return own[-1]["first_step"] if own else None

    def _last_sign_of_life(self, attempt: Attempt) -> float:
        times = []
        for file in self._run.folder.iterdir():
            with suppress(FileNotFoundError):  # one that was being written, and is in its place now
                times += [file.stat().st_mtime] if file.name != self.file.name else []
        # Those of files are the server's, whose clock may be ahead of this node's.
        return max(attempt.started, min(max(times, default=0.0), time.time()))

    def _write(self, attempts: list[Attempt]) -> None:
        write_json(self.file, [asdict(attempt) for attempt in attempts])


def cost_shares(attempts: list[Attempt], failed: bool) -> list[tuple[Attempt, dict[str, float]]]:
    """The attempts of a run that have ended, each with its rank-seconds by what became of them (`COSTS`).

    - useful: steps that no later attempt did again;
    - repeated: steps after the checkpoint that the next attempt resumed from, which it did again;
    - lost: everything, if the run `failed` in the end.

    How far an attempt came, the last record of its metrics tells, or the checkpoint that it saved after that record.
    """
    shares = []
    for attempt, following in followed([attempt for attempt in attempts if attempt.ended]):
        useful = 1.0
        if following and following.first_step is not None and attempt.reached is not None:
            first = attempt.first_step or 0
            done = max(attempt.reached, following.first_step) - first
            useful = max(0, following.first_step - first) / done if done > 0 else 0.0
        seconds = attempt.seconds * attempt.ranks
        parts = (0.0, 0.0, 1.0) if failed else (useful, 1 - useful, 0.0)
        shares.append((attempt, {name: seconds * part for name, part in zip(COSTS, parts, strict=True)}))
    return shares


def followed(attempts: Sequence[Attempt]) -> list[tuple[Attempt, Attempt | None]]:
    """Each attempt with the one after it."""
    return list(zip(attempts, [*attempts[1:], None], strict=True)) if attempts else []
