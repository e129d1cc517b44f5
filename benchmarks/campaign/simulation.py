"""One campaign, from the first sweep to the last trial: the project's own workers on a simulated cluster and clock.

What is simulated stands in for the system's own in one place, `Simulation._in_place`: time, locks between processes,
process numbers, Slurm's commands, and the training. All else is the real code on real files: the study's folder, its
journal, claims, attempt logs, causes, requeue rules.
"""

import contextlib
import io
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any, Literal
from unittest.mock import patch

import optuna
from optuna.storages import BaseStorage
from optuna.trial import TrialState

import fsr.run
from benchmarks.campaign.clock import START, Clock, Killed
from benchmarks.campaign.cluster import Cluster, Job
from benchmarks.campaign.invariants import DONE, BrokenInvariant, Invariants
from benchmarks.campaign.locks import Locks
from benchmarks.campaign.measures import Measures, measure
from benchmarks.campaign.options import Campaign
from benchmarks.campaign.script import BatchScript, spec_of
from benchmarks.campaign.slurm import Slurm
from fsr.config import TrainConfig, synthetic
from fsr.files import write_json
from fsr.lock import FileLock
from fsr.run import Run
from launch.state.paths import StudyFolder
from launch.state.retention import Retention
from launch.state.storage import open_storage
from launch.state.target import Target
from launch.study import Settings, Study, median, tpe, unpruned
from launch.worker import after_crash, method
from launch.worker import study as worker_study
from launch.worker.study import StudyWorker

CODE = "simulated"
LOOK_S = 3600.0  # after the last job is gone, the user looks and calls for workers again
SWEEPS = 40  # calls after which the user gives up: where preemption cancels without notice, each loses all its workers


def suggest(trial: optuna.Trial, base: TrainConfig) -> Settings:
    """Two fields of a configuration."""
    gap = trial.suggest_float("1-momentum", 0.002, 0.2, log=True)
    return {"mask_ratio": trial.suggest_float("mask_ratio", 0.05, 0.95), "momentum": 1 - gap}


def study_of(options: Campaign) -> Study:
    """The study that is swept."""
    return Study(
        name="campaign",
        suggest=suggest,
        known=lambda base: [{"mask_ratio": base.mask_ratio, "1-momentum": 1 - base.momentum}],
        trials=options.trials,
        dataset="synthetic",
        sampler=tpe if options.sampler == "tpe" else lambda seed: optuna.samplers.RandomSampler(seed),
        pruner=median if options.pruner == "median" else unpruned,
    )


def modules_with_datetime() -> list[ModuleType]:
    """Those of the project and of Optuna's storages that ask `datetime` for the time."""
    ours = [module for name, module in sys.modules.items() if name.startswith(("launch.", "optuna.storages."))]
    return [module for module in ours if vars(module).get("datetime") is datetime]


class Simulation:
    """A campaign in a folder. With `write_s`, each durable write takes so long, and whoever writes may be killed in it;
    then each worker reads the journal by itself. Without, all of them share one reader, as one process plays all."""

    def __init__(self, options: Campaign, folder: Path, write_s: float = 0.0) -> None:
        self._options = options
        self._write_s = write_s
        self.folder = StudyFolder(folder)
        self.clock = Clock(lambda: self.invariants.check())
        self._locks = Locks(self.clock)
        self.cluster = Cluster(options, self.clock, self._locks, self._new_script)
        self.invariants = Invariants(self.clock, self.cluster, self.folder, self._trials)
        self._storage: BaseStorage | None = None
        self._sweeps = 0
        self._over: str | None = None
        self._look_is_due = False
        base = synthetic(Path("data"))
        steps = {"iterations": options.iterations, "save_every": options.checkpoint_every}
        self._base = TrainConfig.from_json(base.to_json() | steps | {"eval_every": options.eval_every})
        study = study_of(options)
        self._worker = StudyWorker(study=study, base=self._base, folder=self.folder, code=CODE)

    def run(self) -> Measures:
        """Play it. Raises BrokenInvariant."""
        began = time.process_time()
        said = io.StringIO()
        self._define()
        with self._in_place(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                self._sweep()
                self.clock.run(START + 86400 * self._options.days, self._is_over)
            except BrokenInvariant as error:
                text = said.getvalue()[-2000:]
                raise BrokenInvariant(f"after {self.clock.now - START:.0f} s: {error}\n{text}") from error
            finally:
                self._end_all()
        trials = self._trials()
        self.invariants.check_end(trials)
        attempts = dict(self.invariants.closed)
        for trial in trials:
            if trial.number not in attempts:
                attempts[trial.number] = self.folder.attempt_log(trial.number).attempts()
        return measure(
            trials,
            attempts,
            self.cluster.occupied_until_now(),
            self.cluster.waited,
            reached=self._done() == self._options.trials,
            reason=self._over or f"{self._options.days:g} days are over",
            makespan_h=(self.invariants.last_end - START) / 3600,
            claims=self.invariants.claims,
            sweeps=self._sweeps,
            events=self.clock.events,
            cpu_s=round(time.process_time() - began, 2),
        )

    def _end_all(self) -> None:
        """Kill what still runs, so that no thread is left: the time is over, or an invariant broke."""
        for job in self.cluster.in_queue():
            if job.process is not None:
                with contextlib.suppress(BrokenInvariant):
                    job.process.throw(Killed())

    # The user

    def _define(self) -> None:
        """What `fsr sweep` writes before it submits."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.folder.folder.mkdir(parents=True, exist_ok=True)
        study = self._worker.study
        definition = {"study": study.name, "base": self._base.to_json(), "metric": study.metric}
        definition |= {"space": study.space(self._base), "id": "0123abcd"}
        write_json(self.folder.study_file, definition | {"target": self._options.trials})
        Retention("best").write(self.folder)
        self._storage = open_storage(self.folder.folder)
        optuna.create_study(study_name=study.name, storage=self._storage, direction="maximize")

    def _sweep(self) -> None:
        """`fsr sweep`: the missing trials are wanted, and their workers submitted."""
        options, trials = self._options, self._trials()
        self._sweeps += 1
        self.folder.stop_file.unlink(missing_ok=True)
        failed = sum(trial.state == TrialState.FAIL for trial in trials)
        target = Target(options.trials, options.trials + failed, self.clock.now)
        target.write(self.folder)
        self.invariants.wants(target)
        missing = options.trials - self._done()
        room = options.nodes * (options.gpus_per_node // options.gpus)
        self.cluster.submit(min(missing, options.parallel or room))

    def _is_over(self) -> bool:
        """Whether nothing more will happen. The user looks some time after the last job is gone."""
        if not self._look_is_due and self._over is None and not self.cluster.queued:
            self._look_is_due = True
            if self._done() == self._options.trials:
                self._over = "all trials are done"
            elif self._sweeps == SWEEPS:
                self._over = f"the user called for workers {SWEEPS} times"
            else:
                self.clock.at(self.clock.now + LOOK_S, self._look)
        return self._over is not None

    def _look(self) -> None:
        self._look_is_due = False
        self._sweep()

    def _done(self) -> int:
        return sum(trial.state in DONE for trial in self._trials())

    def _trials(self) -> list[optuna.trial.FrozenTrial]:
        assert self._storage is not None
        study = optuna.load_study(study_name=self._worker.study.name, storage=self._storage)
        return study.get_trials(deepcopy=False)

    # What stands in for the system

    @contextmanager
    def _in_place(self) -> Iterator[None]:
        """Let the project's code meet simulated time, locks, processes, Slurm and training, and no others."""
        clock, locks = self.clock, self._locks
        cancels = self._options.preemption == "cancel"
        slurm = Slurm(self.cluster, self.folder.job_name, cancels, self._options.accounts)
        real_pid = os.getpid

        def pid() -> int:
            return real_pid() if clock.running is None else clock.running.pid

        def write(file: int) -> None:
            if self._write_s and clock.running is not None:
                clock.sleep(self._write_s)

        def provenance() -> dict[str, Any]:  # the real one asks git and the packages' versions
            return {"started": "", "host": os.uname().nodename, "pid": pid()}

        def opened(folder: Path, database: bool = False) -> BaseStorage:
            if self._write_s or self._storage is None:
                return open_storage(folder, database)
            return self._storage

        with ExitStack() as stack:
            for place, name, substitute in (
                (time, "time", clock.time),
                (time, "monotonic", clock.time),
                (time, "sleep", clock.sleep),
                (os, "getpid", pid),
                (os, "fsync", write),
                (subprocess, "run", slurm.run),
                (sys, "argv", sys.argv),
                (FileLock, "_take", lambda lock, how: locks.take(lock, how)),
                (FileLock, "release", lambda lock: locks.release(lock)),
                (FileLock, "is_held", lambda lock: locks.is_held(lock)),
                (fsr.run, "provenance", provenance),
                (method, "train", self._train),
                (worker_study, "open_storage", opened),
                (after_crash, "JobSpec", spec_of(self._worker)),
                (after_crash, "end_with", lambda parent: None),
            ):
                stack.enter_context(patch.object(place, name, substitute))
            for module in modules_with_datetime():
                stack.enter_context(patch.object(module, "datetime", clock.calendar()))
            random.seed(self._options.seed)  # of the pauses between two questions to Slurm
            stack.enter_context(self.invariants.kept())
            yield

    def _new_script(self, job: Job) -> BatchScript:
        assert job.node is not None
        bad, worker = job.node.name in self.cluster.bad, self._worker
        return BatchScript(job, self._options, self.clock, self._locks, lambda: worker, bad, self.invariants.watch)

    def _train(self, config: TrainConfig, run: Run, **hooks: Any) -> Literal["finished", "stopped", "pruned"]:
        assert self.clock.running is not None
        script = self.cluster.accounts[self.clock.running.variables["SLURM_JOB_ID"]].script
        assert isinstance(script, BatchScript)
        return script.train(config, run, **hooks)
