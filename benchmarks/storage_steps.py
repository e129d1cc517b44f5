"""What works on a study do with its storage, each measured in a process of its own; for large_study.py.

    python benchmarks/storage_steps.py STEP STUDY_FOLDER journal|database [CLAIMS]

The last line is JSON: by the name of what was done, its CPU seconds, and what large_study.py says of the rest.
"""

import contextlib
import importlib.util
import json
import os
import runpy
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
from finished_study import EVALUATIONS, NAME, FinishedStudy

from fsr.lock import FileLock
from launch.state.paths import StudyFolder
from launch.state.storage import open_storage
from launch.worker.claim import Claim, claim

SHARED = ("claim.lock", "journal.log.lock")  # the locks for which all workers wait
Figures = dict[str, float]


class SharedLocks:
    """How long this process holds the locks that all workers share."""

    def __init__(self) -> None:
        self.cpu_s = self.wall_s = self.longest_s = 0.0
        self._since: dict[str, tuple[float, float]] = {}

    @contextlib.contextmanager
    def watched(self) -> Iterator["SharedLocks"]:
        """From now on the locks' holder is timed."""
        real = FileLock.acquire, FileLock.try_acquire, FileLock.release

        def acquire(lock: FileLock) -> bool:
            return self._taken(lock, real[0](lock))

        def try_acquire(lock: FileLock, patience_s: float = 0.0) -> bool:
            return self._taken(lock, real[1](lock, patience_s))

        def release(lock: FileLock) -> None:
            since = self._since.pop(lock.path.name, None) if lock.held else None
            real[2](lock)
            if since and not self._since:  # the journal's lock is mostly taken while the claim's is held
                held_s = time.perf_counter() - since[1]
                self.cpu_s, self.wall_s = self.cpu_s + time.process_time() - since[0], self.wall_s + held_s
                self.longest_s = max(self.longest_s, held_s)

        FileLock.acquire, FileLock.try_acquire, FileLock.release = acquire, try_acquire, release  # type: ignore[method-assign]
        try:
            yield self
        finally:
            FileLock.acquire, FileLock.try_acquire, FileLock.release = real  # type: ignore[method-assign]

    def _taken(self, lock: FileLock, taken: bool) -> bool:
        if taken and lock.path.name in SHARED:
            self._since.setdefault(lock.path.name, (time.process_time(), time.perf_counter()))
        return taken


def memory_mb() -> float:
    """The most memory that this process has had. The kernel's ru_maxrss would start with that of its parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024, 1)


def cpu_s() -> float:
    """CPU seconds of this process and those that it started and that have ended."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def measured(work: Callable[[], Any]) -> tuple[Any, Figures]:
    """What a call returns, and what it took."""
    with SharedLocks().watched() as locks:
        cpu, wall = cpu_s(), time.perf_counter()
        answer = work()
        took = {"cpu_s": cpu_s() - cpu, "wall_s": time.perf_counter() - wall}
    return answer, took | {"lock_cpu_s": locks.cpu_s, "lock_wall_s": locks.wall_s, "mb": memory_mb()}


def medians(calls: list[Figures]) -> Figures:
    """The median of each figure; of memory the most, and of the time under the locks the longest call, too."""
    figures = {name: statistics.median(call[name] for call in calls) for name in calls[0]}
    longest = {"longest_lock_wall_s": max(call["lock_wall_s"] for call in calls)}
    return figures | longest | {"mb": max(call["mb"] for call in calls)}


def worker(made: FinishedStudy, trials: int) -> dict[str, Figures]:
    """A worker that begins and trains so many trials, the first of which counts alone; each is evaluated ten times."""
    imported = memory_mb()

    def begin() -> optuna.storages.BaseStorage:
        storage = open_storage(made.folder.folder, made.database)
        optuna.load_study(study_name=NAME, storage=storage)
        return storage

    storage, opened = measured(begin)
    claims, evaluations, tells = [], [], []
    every = made.base.iterations // EVALUATIONS
    for _ in range(trials + 1):
        claimed, figures = measured(lambda: claim(made.study, made.base, made.folder, storage, "local", made.code))
        assert isinstance(claimed, Claim), claimed
        claims.append(figures)
        claimed.attempt_log.begin("local", 0, "n1", 1)

        def evaluate(trial: optuna.Trial, step: int) -> None:
            trial.report(0.6, step)
            trial.should_prune()

        for step in (every * turn for turn in range(1, EVALUATIONS + 1)):
            evaluations.append(measured(lambda trial=claimed.trial, step=step: evaluate(trial, step))[1])
        claimed.attempt_log.end("finished")
        tells.append(measured(lambda claimed=claimed: claimed.tell(0.6))[1])
        claimed.let_go()
    return {
        "imports": {"mb": imported},
        "open": opened,
        "first claim": claims[0],
        "claim": medians(claims[1:]),
        "evaluation": medians(evaluations),
        "tell": medians(tells[1:]),
    }


def command(name: str, *flags: str) -> Figures:
    """A whole command in this process, with its imports."""
    file = importlib.util.find_spec(f"launch.{name}")
    assert file is not None and file.origin is not None
    sys.argv = [file.origin, *flags]
    with open(os.devnull, "w") as nowhere:
        shown, place = os.dup(1), os.dup2(nowhere.fileno(), 1)
        try:
            runpy.run_path(file.origin, run_name="__main__")
        except SystemExit as end:
            assert not end.code, f"{sys.argv} ends with {end.code}"
        finally:
            sys.stdout.flush()
            os.dup2(shown, place)
    return {"cpu_s": cpu_s(), "mb": memory_mb()}


def status(made: FinishedStudy) -> dict[str, Figures]:
    """`fsr status --json`."""
    return {"status": command("status", "--study", NAME, "--runs", str(made.folder.folder.parent), "--json")}


def sweep(made: FinishedStudy) -> dict[str, Figures]:
    """`fsr sweep` where no trial is missing."""
    runs = made.folder.folder.parent
    places = ("--runs", str(runs), "--data_folder", str(runs / "data"), "--dataset", "synthetic", "--cluster", "local")
    return {"sweep": command("sweep", "--study", NAME, *places, "--trials", "1")}


def load(made: FinishedStudy) -> dict[str, Figures]:
    """`analysis.load.load`: as nobody has read the study before, and again."""
    import pandas

    from analysis.load import load as load_tables

    assert pandas
    figures = {"analysis' imports": {"mb": memory_mb()}}
    for name in ("load", "load again"):
        figures[name] = measured(lambda: load_tables(NAME, runs=made.folder.folder.parent))[1]
    return figures


STEPS: dict[str, Callable[..., dict[str, Figures]]] = {step.__name__: step for step in (worker, status, sweep, load)}


def main() -> None:
    """Do one step and print what it took."""
    step, folder, place, *claims = sys.argv[1:]
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    made = FinishedStudy.of(StudyFolder(Path(folder)), place == "database")
    print(json.dumps(STEPS[step](made, *map(int, claims))), flush=True)


if __name__ == "__main__":
    main()
