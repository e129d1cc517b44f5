"""The worker of a study: claims a trial, trains it, tells its score; then the next, until the target is reached."""

import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from fsr.config import TrainConfig
from fsr.errors import NotFiniteError, UserError
from fsr.run import Run
from fsr.score_names import is_score
from launch.slurm import bad_nodes
from launch.slurm.environment import Environment, SlurmEnvironment
from launch.slurm.queue import cancel_waiting
from launch.slurm.requeue_rules import given_up
from launch.state.attempts import Attempt
from launch.state.full_disk import disk_is_full, wait_for_space
from launch.state.paths import StudyFolder
from launch.state.same_failure import failure_of_all, that_count
from launch.state.stop import StopRequest
from launch.state.storage import open_storage
from launch.state.study_storage import StudyStorage
from launch.state.target import Target
from launch.state.trial_identity import TrialIdentity, take_folder
from launch.state.trials import SEED
from launch.study import Study
from launch.worker.claim import Claim, claim
from launch.worker.interrupted import close_lost
from launch.worker.protocol import FindCause, Outcome
from launch.worker.rendezvous import Rendezvous
from launch.worker.training import ENDING_S, attempt, follow, nodes_at_work

IDLE_S = 1.0
CLOCKS_S = 3600.0  # by which the clocks of two machines may differ, generously
NEWEST = 1000  # trials whose logs are read for where others work: all workers may ask at once


@dataclass(frozen=True, kw_only=True)
class StudyWorker:
    """One worker of a study."""

    study: Study
    base: TrainConfig
    folder: StudyFolder
    database: bool = False
    """Whether Optuna's storage is the database that FSR_STORAGE names, rather than the journal."""
    code: str = ""
    """The code version that it runs, which each trial records."""

    def work(self, stop: StopRequest, environment: Environment, rendezvous: Rendezvous) -> Outcome:
        """Train trials until the target is reached or a stop is requested; raises UserError for a mistake."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = open_storage(self.folder.folder, self.database)
        on_slurm = isinstance(environment, SlurmEnvironment)
        began = time.monotonic()
        while not stop():
            try:
                claimed = claim(self.study, self.base, self.folder, storage, environment.job, self.code)
            except OSError as error:
                if not disk_is_full(error):
                    raise
                wait_for_space(self.folder.folder, stop)
                continue
            if claimed == "nothing left":
                return Outcome.DONE
            if claimed == "stopped":  # jobs that wait would only start to end
                if on_slurm:
                    cancel_waiting(self.folder)
                environment.leave("cancelled")
                return Outcome.STOPPED
            if not isinstance(claimed, Claim):
                # Slurm requeues whoever trains the last ones; no node must be held to wait for it. This job itself it
                # has requeued already.
                if on_slurm and (claimed == "wait" or time.monotonic() - began >= ENDING_S):
                    return Outcome.DONE
                time.sleep(IDLE_S)
                continue
            try:
                sound = self._train(claimed, stop, environment, rendezvous)
            finally:  # every trial would meet a mistake of the user, so this one is left to be resumed
                claimed.let_go()
                began = time.monotonic()
            if not sound and on_slurm:
                return Outcome.BROKEN
        environment.leave(environment.cause_of_stop(stop))
        return Outcome.STOPPED

    def follow(self, stop: StopRequest, rendezvous: Rendezvous) -> None:
        """Train as another rank."""
        follow(stop, rendezvous)

    def nodes_at_work(self) -> set[str]:
        """Nodes where an attempt on one of the newest trials came to its first step."""
        return nodes_at_work(Run(folder) for folder in self.folder.trial_folders()[-NEWEST:])

    def close_lost(self, job: str, since: float, find_cause: FindCause) -> bool:
        """Record what ended a job's attempt that died; False if the job had none since then (Unix time)."""
        storage, found = open_storage(self.folder.folder, self.database), False
        for trial in self._worked_on(storage, since):
            attempts = self.folder.attempt_log(trial.number).attempts()
            own = [attempt for attempt in attempts if attempt.job == job and attempt.started >= since]
            found = found or bool(own)
            lock = self.folder.trial_lock(trial.number)
            if own and lock.try_acquire():
                try:
                    close_lost(self.folder, trial.number, find_cause)
                finally:
                    lock.release()
        return found

    def _worked_on(self, storage: StudyStorage, since: float) -> list[FrozenTrial]:
        """The trials that run, or have failed since then (Unix time)."""
        study_id = storage.get_study_id_from_name(self.study.name)
        states = (TrialState.RUNNING, TrialState.FAIL)
        trials = storage.ask(study_id, lambda trials: trials.get_all(trials.numbers(states)))
        return [
            trial
            for trial in trials
            if trial.datetime_complete is None or trial.datetime_complete.timestamp() >= since - CLOCKS_S
        ]

    def _train(self, claimed: Claim, stop: StopRequest, environment: Environment, rendezvous: Rendezvous) -> bool:
        """Train one trial and tell how it ended; False if it broke."""
        trial, run = claimed.trial, claimed.run
        try:
            config = replace(self.base, **claimed.settings)
        except UserError as error:
            claimed.fail(f"impossible settings: {error}")
            return True
        own = TrialIdentity.of(self.folder, trial, self.base.seed)
        stranger = take_folder(self.folder, own, config)
        if stranger:
            print(f"note: {stranger}", file=sys.stderr, flush=True)
        reported = set(claimed.storage.get_trial(trial._trial_id).intermediate_values)

        def prune(step: int, scores: dict[str, float | None]) -> bool:
            score = self._score(scores, f"step {step}")
            if step not in reported:  # a resumed run repeats some evaluations
                trial.report(score, step)
            # A mean over seeds without those that did badly would be no mean, so repeats are never pruned.
            return step < config.iterations and SEED not in trial.user_attrs and trial.should_prune()

        end = attempt(config, run, stop, environment, rendezvous, prune)
        if end == "finished":
            result = run.result()
            assert result is not None, f"{run.folder} is finished without a result"
            try:
                claimed.tell(self._score(result, "the end"))
            except NotFiniteError as error:  # it was told of no evaluation: another process finished the run
                claimed.fail(f"not finite: {error}")
        elif end == "pruned":
            claimed.tell(state=TrialState.PRUNED)
        elif end == "broken":
            attempts = claimed.attempt_log.attempts()
            bad_nodes.report(self.folder, trial.number, attempts[-1])
            reason = given_up(that_count(self.folder, attempts))
            if reason and not self._may_be_common(claimed.storage, attempts[-1]):
                claimed.fail(reason)
            on_bad_node = attempts[-1].cause == "node" and environment.node in bad_nodes.bad_nodes(self.folder)
            if on_bad_node and environment.job == "local":
                raise UserError(f"this machine is broken, and no queue leads to another: {attempts[-1].detail}")
        return end != "broken"

    def _may_be_common(self, storage: StudyStorage, last: Attempt) -> bool:
        """Whether the first attempts failed as this one did, so far: the next claim then says what becomes of them."""
        failure = failure_of_all(self.folder, storage, self.code, Target.of(self.folder).since)
        return failure is not None and (failure.stops or failure.waits_for_more(last))

    def _score(self, scores: Mapping[str, Any], when: str) -> float:
        """The score by which trials are compared.

        Raises UserError if the run does not record it, NotFiniteError if it is no finite number.
        """
        name = self.study.metric
        if name not in scores:
            there = ", ".join(sorted(filter(is_score, scores)))
            raise UserError(f"study {self.study.name} needs the score {name}, which no run records; allowed: {there}")
        if scores[name] is None or not math.isfinite(scores[name]):
            raise NotFiniteError(f"score {name} is {scores[name]} at {when}")
        return float(scores[name])
