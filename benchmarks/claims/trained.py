"""Trains many runs, some at a time: processes that import torch once and train one run after another."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import torch

from fsr.config import TrainConfig
from fsr.errors import UserError
from fsr.parent import end_with
from fsr.run import Run
from fsr.stop_signals import SIGNALS, received_signals
from fsr.train import train

DIED = "a process died: it was killed, or this machine is out of memory"
_stop: Event  # in a worker: set once all are to save and leave


@dataclass(frozen=True)
class Job:
    """One run: an arm of the comparison with a seed."""

    arm: str
    config: TrainConfig
    folder: Path
    released: bool

    @property
    def seed(self) -> int:
        """Of the run."""
        return self.config.seed

    def result(self) -> dict[str, Any] | None:
        """What it came to, if it has ended. Raises UserError if the folder is another run's."""
        run = Run(self.folder)
        run.check(self.config)
        return run.result()


class Trained:
    """Trains jobs when it is iterated over: each with its result or, in a sentence, why there is none.

    Ctrl-C, SIGTERM and the end of the time let every run save; the same call resumes.
    """

    def __init__(self, jobs: Sequence[Job], parallel: int, limit_s: float, logs: Path) -> None:
        self.jobs, self.parallel, self.limit_s, self.logs = jobs, parallel, limit_s, logs
        self.signal: int | None = None
        """What stopped it, if it was a signal."""

    def __iter__(self) -> Iterator[tuple[Job, dict[str, Any] | str]]:
        spawned = multiprocessing.get_context("spawn")  # a forked process could not use the GPU
        stop, received, deadline = spawned.Event(), received_signals(), time.monotonic() + self.limit_s
        threads = max(1, len(os.sched_getaffinity(0)) // self.parallel)
        self.logs.mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor(self.parallel, spawned, begin, (stop, threads, self.logs, os.getpid())) as pool:
            with held_back():
                jobs: dict[Future[dict[str, Any] | None], Job] = {pool.submit(trained, job): job for job in self.jobs}
            pending = set(jobs)
            try:
                while pending:
                    done, pending = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
                    for future in done:
                        found = outcome(future)
                        if found is not None:
                            yield jobs[future], found
                        if found == DIED:  # and no process works on
                            return
                    if received or time.monotonic() > deadline:
                        stop.set()
                        pending = {future for future in pending if not future.cancel()}
            finally:  # also where the consumer of this generator gives up
                stop.set()
                pool.shutdown(cancel_futures=True)
        self.signal = received[0] if received else None


@contextmanager
def held_back() -> Iterator[None]:
    """Hold stop signals back, here and in the processes that start meanwhile; Ctrl-C would end these in an import."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def outcome(future: "Future[dict[str, Any] | None]") -> dict[str, Any] | str | None:
    """The result of a run, or what ended it; None if it was stopped. Raises UserError."""
    try:
        return future.result()
    except UserError:
        raise
    except BrokenProcessPool:
        return DIED
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def begin(stop: Event, threads: int, logs: Path, parent: int) -> None:
    """What a worker does first: what it says goes to a file, and it ends with its parent, who alone is interrupted."""
    global _stop
    end_with(parent)
    _stop = stop
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # see held_back
    log = os.open(logs / f"worker_{os.getpid()}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(log, stream.fileno())
    torch.set_num_threads(threads)


def trained(job: Job) -> dict[str, Any] | None:
    """Train one run and give its result; None if it was stopped before its end. Of its files the records stay."""
    if _stop.is_set():
        return None
    if job.released:
        from benchmarks.claims.released import released_order
    run = Run(job.folder)
    with released_order() if job.released else nullcontext():
        train(job.config, run, stop_requested=_stop.is_set)
    result = run.result()
    if result is not None:
        run.remove_weights(best=True, why="a comparison reads scores alone")
    return result
