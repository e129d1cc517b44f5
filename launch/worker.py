"""What a task runs: claim a trial, train it, tell its score; then the next, until the study has what was ordered."""

import os
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import optuna
from optuna.trial import TrialState

from fsr.config import TrainConfig
from fsr.errors import UserError
from fsr.run import Run
from launch.claim import Claim, Order, claim
from launch.folder import StudyFolder
from launch.preemption import StopRequest, die_after, die_with_parent
from launch.storage import open_storage
from launch.study import Study

IDLE_S = 1.0


def train(config: TrainConfig, run: Run, **hooks: Any) -> Literal["finished", "stopped", "pruned"]:
    """The method's training loop, imported inside the task: nothing else in launch needs torch."""
    from fsr.train import train

    return train(config, run, **hooks)


@dataclass(frozen=True)
class Outcome:
    """How a worker ended: on its own, asked to stop, or because of a mistake that the user has to mend."""

    stopped: bool = False
    mistake: str | None = None


@dataclass(frozen=True, kw_only=True)
class Worker:
    """One worker of a study, as it is pickled and sent to its task. Calling it works until nothing is left to do."""

    study: Study
    base: TrainConfig
    folder: StudyFolder
    order: Order
    sweep_pid: int | None = None
    """The sweep to work for, in a process of its own; None works inside the sweep."""
    environment: dict[str, str] = field(default_factory=dict)
    """Set before torch is imported."""
    train: Callable[..., str] = train

    def __call__(self) -> Outcome:
        """Train trials until the order is met, a stop is requested or the user has something to mend."""
        os.environ.update(self.environment)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        if self.sweep_pid is None:
            request = StopRequest()
        else:
            die_with_parent()
            die_after(self.sweep_pid)
            request = StopRequest(self.folder.sweep_lock(), self.sweep_pid)
        storage = open_storage(self.folder.folder)
        with request as stop_requested:
            while not stop_requested():
                claimed = claim(self.study, self.base, self.folder, self.order, storage)
                if claimed == "nothing left":
                    return Outcome()
                if claimed == "wait":
                    time.sleep(IDLE_S)
                    continue
                try:
                    self._work(claimed, stop_requested)
                except UserError as error:  # every trial would meet it, so this one is left to be resumed
                    return Outcome(mistake=str(error))
                finally:
                    claimed.let_go()
        return Outcome(stopped=True)

    def _work(self, claimed: Claim, stop_requested: Callable[[], bool]) -> None:
        """Train one trial and tell how it ended."""
        trial, run = claimed.trial, self.folder.run(claimed.trial.number)
        started = time.monotonic()

        def clock() -> None:
            seconds = trial.user_attrs.get("seconds", 0.0) + time.monotonic() - started
            trial.set_user_attr("seconds", round(seconds, 1))

        try:
            config = replace(self.base, **claimed.settings)
        except UserError as error:
            self._fail(claimed, error)
            return

        reported = set(claimed.study.get_trials(deepcopy=False)[trial.number].intermediate_values)

        def prune(step: int, scores: dict[str, float]) -> bool:
            if step not in reported:  # a resumed run goes through some evaluations again
                trial.report(scores[self.study.metric], step)
            return step < config.iterations and trial.should_prune()

        try:
            # A worker may have been killed between the end of the training and its tell.
            end = "finished" if run.result() else self.train(config, run, stop_requested=stop_requested, prune=prune)
            clock()
            if end == "finished":
                claimed.tell(run.result()[self.study.metric])
            elif end == "pruned":
                claimed.tell(state=TrialState.PRUNED)
        except UserError:
            raise
        except Exception as error:
            clock()
            self._fail(claimed, error)

    def _fail(self, claimed: Claim, error: Exception) -> None:
        """Record the trial as failed, with the cause."""
        number = claimed.trial.number
        self.folder.run(number).folder.mkdir(parents=True, exist_ok=True)
        self.folder.error_file(number).write_text(traceback.format_exc())
        cause = " ".join(str(error).split())[:300]
        claimed.trial.set_user_attr("error", f"{type(error).__name__}: {cause}")
        claimed.tell(state=TrialState.FAIL)
