"""The method, in simulated time: a run that counts steps, saves, is evaluated and resumes, in the real run's files.

What lies on the disk at the moment of a SIGKILL is what a real run would have written by then: records at their steps,
and the last checkpoint that the background writer had finished.
"""

import json
import math
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from benchmarks.campaign.clock import Clock, Process
from benchmarks.campaign.cluster import Trouble
from benchmarks.campaign.options import Campaign
from fsr.config import TrainConfig
from fsr.errors import NotFiniteError
from fsr.files import write_json
from fsr.lock import FileLock
from fsr.run import Run
from fsr.score_names import CAM_MIOU, SEG_MIOU

LOCK_PATIENCE_S = 20.0  # for a process that is just ending
WRITE_S = 4.0  # in which the background writer has a checkpoint on the disk
LOGS = 20  # records of losses in a run
BAD_GPU_S = 300.0  # after which a GPU of a bad node fails
SILENCE_S = 600.0  # after which the watchdog says that ranks hang
WRONG = "something went wrong"  # in the words of every simulated mistake of the program
ECC = "CUDA error: uncorrectable ECC error encountered"


class RankKilled(BaseException):
    """A signal ended the ranks; the batch script lives on."""

    def __init__(self, number: int, memory: bool = False, hung: bool = False) -> None:
        self.number, self.memory, self.hung = number, memory, hung


class Training:
    """One process's work on one run."""

    def __init__(
        self, options: Campaign, clock: Clock, config: TrainConfig, run: Run, trouble: list[Trouble], bad: bool
    ) -> None:
        self.number = int(run.folder.name.rpartition("_")[2])
        self.step = 0
        """The last that is done."""
        self.first_step = 0
        self.saved = 0
        """Step of the checkpoint on the disk."""
        self.reached = 0
        """The last step that was done, also of one that was killed."""
        self.recorded = 0
        """The last step that a record tells of, or that it resumed from."""
        self.has_started = False
        """Whether its first step is on record."""
        self._options, self._clock, self._config, self._run = options, clock, config, run
        self._trouble = trouble  # what is to end the ranks; filled by an event
        self._fails_at = clock.now + BAD_GPU_S if bad else math.inf
        self._step_s = options.step_s / options.gpus**options.scaling
        self._log_every = max(1, config.iterations // LOGS)
        self._since = 0.0  # when the steps after `step` began
        self._writing: list[tuple[int, float]] = []  # checkpoints, and when the background writer has finished them
        drawn = random.Random(f"{options.seed} setting {self.number}")
        self._quality = self._quality_of(config, drawn.gauss(0, 0.02))
        self._broken = drawn.choice(["memory", "not finite"]) if drawn.random() < options.broken_settings else None

    def train(
        self, stop_requested: Callable[[], bool], prune: Callable[[int, dict[str, float | None]], bool]
    ) -> Literal["finished", "stopped", "pruned"]:
        """Stands in for `fsr.train.train`."""
        lock = FileLock(self._run.lock_file)
        lock.take(f"training in {self._run.folder}", LOCK_PATIENCE_S)
        try:
            return self._train(stop_requested, prune)
        finally:
            lock.release()

    def _train(
        self, stop_requested: Callable[[], bool], prune: Callable[[int, dict[str, float | None]], bool]
    ) -> Literal["finished", "stopped", "pruned"]:
        config, run = self._config, self._run
        run.start(config)
        if run.checkpoint_file.exists():
            self.step = self.saved = int(run.checkpoint_file.read_text())
        if run.metrics_file.exists():
            run.rewind(self.step)
        self.first_step = self.recorded = self.reached = self.step
        self._rest(self._options.start_s)
        run.record_attempt("simulated", "fp32", self.step)
        self.has_started = True
        self._since = self._clock.now
        while True:
            self._meet_trouble()
            if stop_requested():
                self._save()
                return "stopped"
            if self.step == config.iterations:
                break
            self._advance(min(config.iterations, (self.step // config.eval_every + 1) * config.eval_every))
            if self.step % config.eval_every == 0 or self.step == config.iterations:
                scores = self._evaluate()
                if prune(self.step, scores):
                    self._save()
                    return "pruned"
        self._save()
        write_json(run.result_file, self._scores(self.step))
        return "finished"

    def _advance(self, until: int) -> None:
        """Take steps until that one, or until somebody interrupts: then the step that is being done is finished."""
        if self.step >= until:
            return
        try:
            self._process.wait(min(self._time_of(until), self._fails_at), interruptible=True)
            reached = self._step_at(self._clock.now)
            if reached < until and not self._trouble and self._clock.now < self._fails_at:
                reached += 1
                self._process.wait(self._time_of(reached))
        finally:
            self._write_until(self._clock.now)
        self.step = reached
        if reached % self._config.save_every == 0:
            self._rest(self._options.stall_s)
        self._since = self._clock.now

    def _evaluate(self) -> dict[str, float | None]:
        self._rest(self._options.eval_s)
        scores = self._scores(self.step)
        self._log([{"step": self.step, "perf/steps_per_s": 1 / max(self._step_s, 1e-6), **scores}])
        self._since = self._clock.now
        return scores

    def _meet_trouble(self) -> None:
        """Raise what ends the ranks, as it would be raised."""
        if self._broken == "memory":
            raise RankKilled(9, memory=True)
        if self._broken == "not finite" and self.step > 0:
            raise NotFiniteError(f"loss nan at step {self.step}")
        if self._clock.now >= self._fails_at:
            raise RuntimeError(ECC)
        if not self._trouble:
            return
        kind = self._trouble.pop()
        if kind == "exception":
            raise RuntimeError(f"{WRONG} at step {self.step}")
        if kind == "gpu":
            raise RuntimeError(ECC)
        if kind == "hang":
            self._rest(SILENCE_S)
            raise RankKilled(9, hung=True)
        raise RankKilled(9 if kind == "memory" else 11, memory=kind == "memory")

    # What is done by when, if the steps after `step` began at `_since`

    def _time_of(self, step: int) -> float:
        """When a step is done. The steps stand still after each that is saved."""
        every = self._config.save_every
        stalls = max(0, (step - 1) // every - self.step // every)
        return self._since + (step - self.step) * self._step_s + stalls * self._options.stall_s

    def _step_at(self, moment: float) -> int:
        """The last step that is done then."""
        step = self.step + math.floor((moment - self._since) / max(self._step_s, 1e-9) + 1e-6)
        step = min(step, self._config.iterations)
        while step > self.step and self._time_of(step) > moment + 1e-6:
            step -= 1
        return step

    def _write_until(self, moment: float) -> None:
        """Bring to the disk what a real run would have written of these steps by then."""
        reached = self.reached = self._step_at(moment)
        every = self._config.save_every
        logged = range((self.step // self._log_every + 1) * self._log_every, reached + 1, self._log_every)
        if logged:
            self._log([{"step": step, "loss": 1.0} for step in logged], self._time_of(logged[-1]))
        saved = range((self.step // every + 1) * every, reached + 1, every)
        self._writing += [(step, self._time_of(step) + self._options.stall_s + WRITE_S) for step in saved]
        self._finish_writing(moment)

    def _finish_writing(self, moment: float) -> None:
        """Bring the checkpoints to the disk that the background writer had finished by then."""
        done = [(step, at) for step, at in self._writing if at <= moment]
        if done:
            self._writing = self._writing[len(done) :]
            self._put(*done[-1])

    def _log(self, records: list[dict[str, float]], moment: float | None = None) -> None:
        with open(self._run.metrics_file, "a") as file:
            file.write("".join(json.dumps(record) + "\n" for record in records))
        self.recorded = int(records[-1]["step"])
        self._date(self._run.metrics_file, moment)

    def _save(self) -> None:
        """Save a checkpoint and wait for it."""
        self._writing = []
        self._put(self.step, self._clock.now)

    def _put(self, step: int, moment: float) -> None:
        self._run.checkpoint_file.write_text(str(step))
        self.saved = step
        self._date(self._run.checkpoint_file, moment)

    def _date(self, file: Path, moment: float | None) -> None:
        """Give a file the simulated time at which it was written: signs of life are told by it."""
        at = self._clock.now if moment is None else moment
        os.utime(file, (at, at))

    def _rest(self, seconds: float) -> None:
        try:
            self._process.wait(self._clock.now + seconds)
        finally:
            self._finish_writing(self._clock.now)

    @property
    def _process(self) -> Process:
        assert self._clock.running is not None
        return self._clock.running

    def _scores(self, step: int) -> dict[str, float | None]:
        noise = random.Random(f"{self._options.seed} score {self.number} {step}").gauss(0, 0.005)
        score = self._quality * (1 - math.exp(-4 * step / self._config.iterations)) + noise
        return {SEG_MIOU: min(1.0, max(0.0, score)), CAM_MIOU: 0.5}

    @staticmethod
    def _quality_of(config: TrainConfig, noise: float) -> float:
        """What a setting would come to in the end."""
        return 0.7 - 0.4 * abs(config.mask_ratio - 0.5) - 2 * abs(config.momentum - 0.97) + noise
