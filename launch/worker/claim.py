"""Which trial a worker may train: never one that another has, never more than wanted, never a gap in the numbers."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from fsr.config import TrainConfig
from fsr.lock import FileLock
from fsr.run import Run
from launch.slurm import bad_nodes, commands
from launch.slurm.environment import cause_of_lost_attempt
from launch.slurm.requeue_rules import blames_setting, given_up, still_runs
from launch.state.attempts import AttemptLog
from launch.state.hparams import write_hparams
from launch.state.paths import StudyFolder
from launch.state.progress import Progress
from launch.state.retention import Retention, announce_end, clean_up, clean_up_announced
from launch.state.same_failure import failure_of_all, stop_study, that_count
from launch.state.target import Target
from launch.state.trials import CODE, DONE, ERROR, SEED, SUMMARY, Summary, count, damage_of, summary_of
from launch.study import Settings, Study
from launch.worker.protocol import FindCause


@dataclass(frozen=True)
class Claim:
    """A trial that only this process may train until it lets go. A resumed trial keeps its number and parameters."""

    study: optuna.Study
    trial: optuna.Trial
    folder: StudyFolder
    base: TrainConfig
    settings: Settings
    lock: FileLock
    run: Run

    @property
    def attempt_log(self) -> AttemptLog:
        """The attempts on it."""
        return AttemptLog(self.run)

    def tell(self, value: float | None = None, state: TrialState = TrialState.COMPLETE) -> None:
        """Record how the trial ended, and what it took; then remove the weights that the study does not keep."""
        attempts, progress = self.attempt_log.attempts(), Progress.of(self.run)
        summary: Summary = {
            "causes": [attempt.cause for attempt in attempts],
            "node": attempts[-1].node if attempts else "",
            "seconds": round(sum(attempt.seconds for attempt in attempts), 1),
            "gpu_seconds": self.attempt_log.gpu_seconds(failed=state == TrialState.FAIL),
            "bytes": Retention.of(self.folder).bytes_left(self.run, state),
            "step": progress.step,
            "evaluated": progress.evaluated,
            "scores": progress.scores,
            "steps_per_s": progress.steps_per_s,
        }
        self.trial.set_user_attr(SUMMARY, summary)
        seed = self.trial.user_attrs.get(SEED, self.base.seed)
        write_hparams(self.run, self.trial, seed, state)
        announce_end(self.folder, self.trial.number, state)
        # Optuna itself says what becomes of a score that is none.
        told = self.study.tell(self.trial, value, None if state is TrialState.COMPLETE else state)
        clean_up(self.folder, self.trial.number, told.state)

    def fail(self, reason: str) -> None:
        """Record that the trial is given up."""
        self.trial.set_user_attr(ERROR, reason)
        self.tell(state=TrialState.FAIL)

    def let_go(self) -> None:
        """Leave the trial. If its end was not told, the next worker resumes it."""
        self.lock.release()


def claim(
    study: Study, base: TrainConfig, folder: StudyFolder, storage: BaseStorage, job: str, code: str
) -> Claim | Literal["wait", "ending", "nothing left", "stopped"]:
    """A trial for the worker of a job to train: an interrupted one before a new one.

    A trial whose attempts used up their budget is told as failed on the way. "wait" while others train the last ones,
    because one of them may be killed; "ending" if one of them is an earlier start of this job, which is being killed;
    "stopped" if the first attempts have all failed in the same way, and this stopped the study.
    The trial records that it is trained by the code version `code`.
    """
    with folder.claim_lock():
        target = Target.of(folder)
        session = optuna.load_study(study_name=study.name, storage=storage)
        clean_up_announced(folder, session)
        free, busy = _running_trials(session, folder, job)
        # Read again: a worker tells before it lets go, so now the state of each free trial is the last word.
        trials = session.get_trials(deepcopy=False)
        for number in free:
            if trials[number].state == TrialState.RUNNING:
                close_lost(folder, number, partial(cause_of_lost_attempt, identity=folder.identity))
        failure = failure_of_all(folder, trials, code, target.since)
        if failure and failure.stops:
            stop_study(folder, failure, time.time())
            for lock in free.values():
                lock.release()
            return "stopped"

        def give_up(number: int, reason: str) -> None:
            trial = _running(session, storage, number)
            Claim(session, trial, folder, base, {}, free[number], folder.run(number)).fail(reason)

        suspended = {}  # trials that are not given up before another one has shown whether they are to blame
        last: set[int] = set()  # those that failed as others did: another setting tells more than another attempt
        for number in free:
            if trials[number].state == TrialState.RUNNING:
                attempts = folder.attempt_log(number).attempts()
                reason = given_up(that_count(folder, attempts))
                alike = failure is not None and bool(attempts) and failure.waits_for_more(attempts[-1])
                if reason and alike:
                    suspended[number] = reason
                elif reason:
                    give_up(number, reason)
                elif alike:
                    last.add(number)
        trials = session.get_trials(deepcopy=False)
        reachable = count(trials, *DONE) + busy >= target.trials
        choice = {number: lock for number, lock in free.items() if number not in suspended}
        others = {number: lock for number, lock in choice.items() if number not in last}
        chosen = None if reachable else _next_number(trials, others, target.limit)
        if chosen is None and not reachable:
            chosen = _next_number(trials, choice, target.limit)
        if chosen is None and not busy:
            for number, reason in suspended.items():
                give_up(number, reason)
        for number, lock in free.items():
            if number != chosen:
                lock.release()
        if chosen is None:
            running = [trial.number for trial in trials if trial.state == TrialState.RUNNING]
            if any(_had(folder, number, job) for number in running if number not in free):
                return "ending"
            return "wait" if busy else "nothing left"

        lock = free.get(chosen) or folder.trial_lock(chosen)
        if not lock.held:
            lock.acquire()
        sampler, pruner = study.sampler_for(chosen, base), study.pruner(base)
        session = optuna.load_study(study_name=study.name, storage=storage, sampler=sampler, pruner=pruner)
        trial = _open(session, storage, chosen, trials, study.known_params(base), code)
        # Suggested under the lock, so that the next sampler sees these parameters among the running trials.
        settings = study.settings_of(trial, base)
        if SEED in trial.user_attrs:
            settings |= {"seed": trial.user_attrs[SEED]}
        versions = trial.user_attrs.get(CODE, [])
        if versions[-1:] != [code]:
            trial.set_user_attr(CODE, [*versions, code])
        return Claim(session, trial, folder, base, settings, lock, folder.run(chosen))


def _running_trials(session: optuna.Study, folder: StudyFolder, job: str) -> tuple[dict[int, FileLock], int]:
    """The locks, taken, of the running trials that no worker holds, by number; and how many others are held."""
    free, busy = {}, 0
    for trial in session.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        lock = folder.trial_lock(trial.number)
        if lock.try_acquire() and not _held_elsewhere(folder, trial.number, job):
            free[trial.number] = lock
        else:
            lock.release()
            busy += 1
    return free, busy


def close_lost(folder: StudyFolder, number: int, find_cause: FindCause) -> None:
    """If the last attempt on a trial died without a cause, record one. The trial's lock must be held."""
    log = folder.attempt_log(number)
    if log.close_lost(find_cause):
        bad_nodes.report(folder, number, log.attempts()[-1])


def _held_elsewhere(folder: StudyFolder, number: int, job: str) -> bool:
    """Whether Slurm says that another job still works on a trial whose lock is free."""
    attempts = folder.attempt_log(number).attempts()
    if not attempts or attempts[-1].cause or attempts[-1].job in ("local", job):
        return False
    return still_runs(attempts[-1], commands.job(attempts[-1].job, folder.identity))


def _had(folder: StudyFolder, number: int, job: str) -> bool:
    """Whether the last attempt on a trial is one of this job, and has not ended."""
    attempts = folder.attempt_log(number).attempts()
    return bool(attempts) and attempts[-1].job == job and attempts[-1].cause is None


def _next_number(trials: list[FrozenTrial], free: dict[int, FileLock], limit: int) -> int | None:
    for trial in trials:
        interrupted = trial.state == TrialState.RUNNING and trial.number in free
        if interrupted or trial.state == TrialState.WAITING:
            return trial.number
    return len(trials) if len(trials) < limit else None


def _open(
    session: optuna.Study,
    storage: BaseStorage,
    number: int,
    trials: list[FrozenTrial],
    known: Sequence[dict[str, Any]],
    code: str,
) -> optuna.Trial:
    """The trial of this number: resumed if it is running; else asked for, with a known setting while one is left.

    A known setting whose trial failed gets another try, unless it failed of itself, with this same code version.
    """
    if number < len(trials) and trials[number].state == TrialState.RUNNING:
        return _running(session, storage, number)
    if number == len(trials):
        tried = [trial.params for trial in trials if trial.state != TrialState.FAIL or _fails_again(trial, code)]
        untried = next((settings for settings in known if settings not in tried), None)
        if untried is not None:
            session.enqueue_trial(untried)
    trial = session.ask()  # takes what is enqueued first, also what a worker killed right here had left
    assert trial.number == number
    return trial


def _fails_again(trial: FrozenTrial, code: str) -> bool:
    if damage_of(trial):
        return False
    return trial.user_attrs.get(CODE, [])[-1:] == [code] and blames_setting(summary_of(trial).get("causes", []))


def _running(session: optuna.Study, storage: BaseStorage, number: int) -> optuna.Trial:
    """The handle of a trial that somebody asked for before."""
    study_id = storage.get_study_id_from_name(session.study_name)
    return optuna.Trial(session, storage.get_trial_id_from_study_id_trial_number(study_id, number))
