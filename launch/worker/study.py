"""What a task runs: claim a trial, train it, tell its score; then the next, until the study has what was ordered."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import optuna
from optuna.trial import TrialState

from fsr.config import TrainConfig
from fsr.errors import UserError
from launch.slurm import bad_nodes
from launch.slurm.environment import LocalEnvironment, SlurmEnvironment
from launch.state.attempts import Attempt, Cause
from launch.state.paths import StudyFolder
from launch.state.process import die_after, die_with_parent
from launch.state.repeats import SEED
from launch.state.stop import StopRequest
from launch.state.storage import open_storage
from launch.study import Study
from launch.worker.claim import Claim, claim, close_lost
from launch.worker.full_disk import disk_is_full, wait_for_space
from launch.worker.rendezvous import Rendezvous
from launch.worker.training import Environment, Train, attempt, train

IDLE_S = 1.0


@dataclass(frozen=True)
class Outcome:
    """How a worker ended."""

    stopped: bool = False
    """Asked to, before the work was done."""
    mistake: str | None = None
    """What the user has to mend."""
    broken: bool = False
    """A trial failed in it, and only a new process is sure to be sound (CUDA, other ranks)."""


@dataclass(frozen=True, kw_only=True)
class Worker:
    """One worker of a study."""

    study: Study
    base: TrainConfig
    folder: StudyFolder
    database: bool = False
    """Whether Optuna's storage is the database that FSR_STORAGE names, rather than the journal."""
    sweep_pid: int | None = None
    """The sweep to work for, in a process of its own; None works inside the sweep."""
    variables: dict[str, str] = field(default_factory=dict)
    """Set before torch is imported."""
    train: Train = train

    def __call__(self) -> Outcome:
        """Work as a process of this machine, for as long as its sweep lives."""
        os.environ.update(self.variables)
        if self.sweep_pid is None:
            request = StopRequest(self.folder.stop_file)
        else:
            die_with_parent()
            die_after(self.sweep_pid)
            request = StopRequest(self.folder.stop_file, self.folder.sweep_lock(), self.sweep_pid)
        with request as stop:
            return self.work(stop, LocalEnvironment(), Rendezvous(self.folder.locks))

    def work(self, stop: StopRequest, environment: Environment, ranks: Rendezvous) -> Outcome:
        """Train trials until the order is met, a stop is requested or the user has something to mend."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = open_storage(self.folder.folder, self.database)
        while not stop():
            try:
                claimed = claim(self.study, self.base, self.folder, storage, environment.task)
            except OSError as error:
                if not disk_is_full(error):
                    raise
                wait_for_space(self.folder.folder, stop)
                continue
            if claimed == "nothing left":
                return Outcome()
            if claimed == "wait" and isinstance(environment, SlurmEnvironment):
                return Outcome()  # Slurm brings back who trains the last ones; nodes must not be held to wait for it
            if claimed == "wait":
                time.sleep(IDLE_S)
                continue
            try:
                sound = self._work(claimed, stop, environment, ranks)
            except UserError as error:  # every trial would meet it, so this one is left to be resumed
                return Outcome(mistake=str(error))
            finally:
                claimed.let_go()
            if not sound and isinstance(environment, SlurmEnvironment):
                return Outcome(broken=True)
        environment.leave(environment.cause_of_stop(stop))
        return Outcome(stopped=True)

    def _work(self, claimed: Claim, stop: StopRequest, environment: Environment, ranks: Rendezvous) -> bool:
        """Train one trial and tell how it ended; False if it broke."""
        trial, run = claimed.trial, claimed.run
        try:
            config = replace(self.base, **claimed.settings)
        except UserError as error:
            claimed.fail(f"impossible settings: {error}")
            return True
        reported = set(claimed.study.get_trials(deepcopy=False)[trial.number].intermediate_values)

        def prune(step: int, scores: dict[str, float]) -> bool:
            if step not in reported:  # a resumed run goes through some evaluations again
                trial.report(scores[self.study.metric], step)
            # A mean over seeds without those that did badly would be no mean, so repeats are never pruned.
            return step < config.iterations and SEED not in trial.user_attrs and trial.should_prune()

        end = attempt(self.train, config, run, stop, environment, ranks, prune)
        if end == "finished":
            claimed.tell(run.result()[self.study.metric])
        elif end == "pruned":
            claimed.tell(state=TrialState.PRUNED)
        elif end == "broken":
            bad_nodes.report(self.folder, trial.number, claimed.attempt_log.attempts()[-1])
            reason = claimed.attempt_log.given_up()
            if reason:
                claimed.fail(reason)
        return end != "broken"

    def close_lost(self, task: str, since: float, find_cause: Callable[[Attempt], tuple[Cause, str]]) -> bool:
        """Write down how the attempt of a task ended that died; False if the task had none since then (Unix time)."""
        storage = open_storage(self.folder.folder, self.database)
        study = optuna.load_study(study_name=self.study.name, storage=storage)
        found = False
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.FAIL)):
            attempts = self.folder.attempt_log(trial.number).attempts()
            own = [attempt for attempt in attempts if attempt.task == task and attempt.started >= since]
            found = found or bool(own)
            lock = self.folder.trial_lock(trial.number)
            if own and lock.try_acquire():
                try:
                    close_lost(self.folder, trial.number, find_cause)
                finally:
                    lock.release()
        return found
