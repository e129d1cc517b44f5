"""Which trial a worker may train: never one that another has, never more than ordered, never a gap in the numbers."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState

from fsr.config import TrainConfig
from fsr.run import Run
from launch.slurm import bad_nodes, commands
from launch.slurm.environment import cause_of_end
from launch.state.attempts import Attempt, AttemptLog, Cause
from launch.state.hparams import write_hparams
from launch.state.lock import FileLock
from launch.state.paths import StudyFolder
from launch.state.progress import Progress
from launch.state.repeats import SEED
from launch.state.target import Target
from launch.study import Settings, Study

DONE = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class Claim:
    """A trial that only this process may train until it lets go. A resumed trial keeps its number and parameters."""

    study: optuna.Study
    trial: optuna.Trial
    base: TrainConfig
    settings: Settings
    lock: FileLock
    run: Run

    @property
    def attempt_log(self) -> AttemptLog:
        """The attempts on it."""
        return AttemptLog(self.run)

    def tell(self, value: float | None = None, state: TrialState | None = None) -> None:
        """Record how the trial ended, and what it took."""
        attempts = self.attempt_log.attempts()
        summary = {
            "causes": [attempt.cause for attempt in attempts],
            "node": attempts[-1].node if attempts else "",
            "seconds": round(sum(attempt.seconds for attempt in attempts), 1),
            "gpu_seconds": self.attempt_log.gpu_seconds(failed=state == TrialState.FAIL),
            **asdict(Progress.of(self.run)),
        }
        self.trial.set_user_attr("summary", summary)  # so that nobody need open the folders of finished trials
        seed = self.trial.user_attrs.get(SEED, self.base.seed)
        write_hparams(self.run, self.trial, seed, state or TrialState.COMPLETE)
        self.study.tell(self.trial, value, state)

    def fail(self, reason: str) -> None:
        """Record that the trial is given up."""
        self.trial.set_user_attr("error", reason)
        self.tell(state=TrialState.FAIL)

    def let_go(self) -> None:
        """Leave the trial. If its end was not told, the next worker resumes it."""
        self.lock.release()


def claim(
    study: Study, base: TrainConfig, folder: StudyFolder, storage: optuna.storages.BaseStorage, task: str
) -> Claim | Literal["wait", "nothing left"]:
    """A trial for the worker of a task to train: an interrupted one before a new one.

    A trial that died too often is told as failed on the way. "wait" while others train the last ones, because one of
    them may be killed.
    """
    with folder.claim_lock():
        order = Target.of(folder)
        session = optuna.load_study(study_name=study.name, storage=storage)
        free, busy = {}, 0
        for trial in session.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            lock = folder.trial_lock(trial.number)
            if lock.try_acquire() and not _looked_after(folder.attempt_log(trial.number), task):
                free[trial.number] = lock
            else:
                lock.release()
                busy += 1

        # Read again: a worker tells before it lets go, so now the state of each free trial is the last word.
        trials = session.get_trials(deepcopy=False)
        for number, lock in free.items():
            if trials[number].state == TrialState.RUNNING:
                close_lost(folder, number, cause_of_end)
                reason = folder.attempt_log(number).given_up()
                if reason:
                    Claim(session, _running(session, storage, number), base, {}, lock, folder.run(number)).fail(reason)
        trials = session.get_trials(deepcopy=False)
        done = sum(trial.state in DONE for trial in trials)
        number = None
        if done + busy < order.wanted:
            number = _next_number(trials, free, order.limit)
        lock = free.pop(number, None)
        for other in free.values():
            other.release()
        if number is None:
            return "wait" if busy else "nothing left"

        if lock is None:
            lock = folder.trial_lock(number)
            lock.acquire()
        session = optuna.load_study(
            study_name=study.name,
            storage=storage,
            sampler=study.sampler_for(number, base),
            pruner=study.pruner(base),
        )
        trial = _open(session, storage, number, trials, study.known(base))
        # Suggested under the lock, so that the next sampler sees these parameters among the running trials.
        settings = study.suggest(trial, base)
        if SEED in trial.user_attrs:
            settings |= {"seed": trial.user_attrs[SEED]}
        return Claim(session, trial, base, settings, lock, folder.run(number))


def close_lost(folder: StudyFolder, number: int, find_cause: Callable[[Attempt], tuple[Cause, str]]) -> None:
    """If the last attempt on a trial died without a word, write down its cause. The trial's lock must be held."""
    attempt_log = folder.attempt_log(number)
    if attempt_log.close_lost(find_cause):
        bad_nodes.report(folder, number, attempt_log.attempts()[-1])


def _looked_after(attempt_log: AttemptLog, task: str) -> bool:
    """Whether Slurm says that the task of the last attempt still runs, although the trial's lock is free.

    Some file systems keep locks to the node that took them; and if it died, its own batch script knows best of what.
    """
    attempts = attempt_log.attempts()
    if not attempts or attempts[-1].cause or attempts[-1].task in ("local", task):
        return False
    job = commands.job(attempts[-1].task)
    return job is not None and job.state == "RUNNING" and job.restarts == attempts[-1].restart


def _next_number(trials: list[FrozenTrial], free: dict[int, FileLock], limit: int) -> int | None:
    for trial in trials:
        interrupted = trial.state == TrialState.RUNNING and trial.number in free
        if interrupted or trial.state == TrialState.WAITING:
            return trial.number
    return len(trials) if len(trials) < limit else None


def _open(
    session: optuna.Study,
    storage: optuna.storages.BaseStorage,
    number: int,
    trials: list[FrozenTrial],
    known: list[dict[str, Any]],
) -> optuna.Trial:
    """The trial of this number: resumed if it is running; else asked for, with a known setting while one is left."""
    if number < len(trials) and trials[number].state == TrialState.RUNNING:
        return _running(session, storage, number)
    if number == len(trials):
        tried = [trial.params for trial in trials if trial.state != TrialState.FAIL]
        untried = [settings for settings in known if settings not in tried]
        if untried:
            session.enqueue_trial(untried[0])
    trial = session.ask()  # takes what is enqueued first, also what a worker killed right here had left
    assert trial.number == number
    return trial


def _running(session: optuna.Study, storage: optuna.storages.BaseStorage, number: int) -> optuna.Trial:
    """The handle of a trial that somebody asked for before."""
    study_id = storage.get_study_id_from_name(session.study_name)
    return optuna.Trial(session, storage.get_trial_id_from_study_id_trial_number(study_id, number))
