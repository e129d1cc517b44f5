"""Which trial a worker may train: never one that another has, never more than ordered, never a gap in the numbers."""

from dataclasses import dataclass
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState

from fsr.config import TrainConfig
from launch.folder import StudyFolder
from launch.lock import FileLock
from launch.study import Settings, Study

DONE = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class Order:
    """What a sweep wants: `wanted` trials finished or pruned, and no number from `limit` on.

    `limit` allows for the trials that had failed before, so one that fails is not replaced until the next order.
    """

    wanted: int
    limit: int


@dataclass(frozen=True)
class Claim:
    """A trial that only this process may train until it lets go. A resumed trial keeps its number and parameters."""

    study: optuna.Study
    trial: optuna.Trial
    settings: Settings
    lock: FileLock

    def tell(self, value: float | None = None, state: TrialState | None = None) -> None:
        """Record how the trial ended."""
        self.study.tell(self.trial, value, state)

    def let_go(self) -> None:
        """Leave the trial. If its end was not told, the next worker resumes it."""
        self.lock.release()


def claim(
    study: Study, base: TrainConfig, folder: StudyFolder, order: Order, storage: optuna.storages.BaseStorage
) -> Claim | Literal["wait", "nothing left"]:
    """A trial to train: an interrupted one before a new one.

    "wait" while others train the last ones, because one of them may be killed.
    """
    with folder.claim_lock():
        session = optuna.load_study(study_name=study.name, storage=storage)
        free, busy = {}, 0
        for trial in session.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            lock = folder.trial_lock(trial.number)
            if lock.try_acquire():
                free[trial.number] = lock
            else:
                busy += 1

        # Read again: a worker tells before it lets go, so now the state of each free trial is the last word.
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
        return Claim(session, trial, study.suggest(trial, base), lock)


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
        study_id = storage.get_study_id_from_name(session.study_name)
        return optuna.Trial(session, storage.get_trial_id_from_study_id_trial_number(study_id, number))
    if number == len(trials):
        tried = [trial.params for trial in trials if trial.state != TrialState.FAIL]
        untried = [settings for settings in known if settings not in tried]
        if untried:
            session.enqueue_trial(untried[0])
    trial = session.ask()  # takes what is enqueued first, also what a worker killed right here had left
    assert trial.number == number
    return trial
