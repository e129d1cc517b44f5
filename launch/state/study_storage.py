"""Optuna's storage of a study, which also answers what a claim asks of all trials without reading them."""

import copy
from abc import abstractmethod
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from launch.state.storage_view import StorageView
from launch.state.trial_store import UNFINISHED, TrialStore
from launch.state.trials import DONE

Answer = TypeVar("Answer")
AT_ONCE = 1000  # trials that are read in one go
BEST = 100  # of all trials, which are shown beside the newest: samplers learn most of them


class StudyStorage(BaseStorage):
    """What the journal and a database have in common."""

    @abstractmethod
    def ask(self, study_id: int, question: Callable[[TrialStore], Answer]) -> Answer:
        """What the trials of a study say, as they are now. Raises KeyError for a study that is not there."""

    @contextmanager
    def together(self) -> Iterator[None]:
        """Write what is set of trials inside as one, where the storage can: it is there at the end of the block."""
        yield

    def catch_up(self) -> None:
        """Read what is new, before others have to wait for it."""

    def unread(self) -> int:
        """Bytes of what is new, where the storage can tell."""
        return 0

    def hold(self, trial_id: int) -> None:
        """Take it that nobody else changes a trial from now on, until it ends: who trains it holds its lock."""

    def add_trials(self, study_id: int, trials: Iterable[FrozenTrial]) -> None:
        """Add many trials. Raises KeyError for a study that is not there."""
        for trial in trials:
            self.create_new_trial(study_id, trial)


@dataclass(frozen=True)
class Counts:
    """How many trials a study has."""

    done: int = 0
    """Finished or pruned."""
    unfinished: int = 0
    failed: int = 0
    repeats: int = 0
    """Repeats, without those that failed."""


def counts_of(study: optuna.Study) -> Counts:
    """How many trials a study has now."""
    return storage_of(study).ask(
        study._study_id,
        lambda trials: Counts(
            trials.count(*DONE), trials.count(*UNFINISHED), trials.count(TrialState.FAIL), trials.repeats()
        ),
    )


def waiting(params: dict[str, Any], user_attrs: dict[str, Any]) -> FrozenTrial:
    """A trial that waits for a worker, and is to have these parameters."""
    return create_trial(state=TrialState.WAITING, system_attrs={"fixed_params": params}, user_attrs=user_attrs)


def storage_of(study: optuna.Study) -> StudyStorage:
    """The storage that a study was loaded from, for which Optuna has no public name."""
    storage = study._storage
    assert isinstance(storage, StudyStorage), f"{storage} was opened in another way"
    return storage


def one_by_one(study: optuna.Study, unless: Container[int] = ()) -> Iterator[FrozenTrial]:
    """The trials of a study by number, without those of these numbers, and without having all in memory at once."""
    storage, study_id = storage_of(study), study._study_id
    numbers = [number for number in range(storage.ask(study_id, len)) if number not in unless]
    for first in range(0, len(numbers), AT_ONCE):
        yield from storage.ask(study_id, partial(TrialStore.get_all, numbers=numbers[first : first + AT_ONCE]))


class Considered(StorageView):
    """A study's storage as samplers and pruners see it: the newest trials that run or have ended, and the best of all.

    They read every trial that they are shown, each time they are asked: of a hundred thousand that takes seconds.
    """

    def __init__(self, storage: StudyStorage, newest: int) -> None:
        super().__init__(storage)
        self._study, self._newest = storage, newest

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """The trials that are shown, by number."""
        shown = [state for state in TrialState if states is None or state in states]
        sign = self.get_study_directions(study_id)[0].value * 2 - 3  # MINIMIZE is 1, MAXIMIZE 2

        def choose(trials: TrialStore) -> list[FrozenTrial]:
            unfinished = [state for state in shown if state in UNFINISHED]
            numbers = {number for state in unfinished for number in trials.numbers([state])[-self._newest :]}
            if any(state.is_finished() for state in shown):
                numbers.update(trials.newest(self._newest), trials.best(BEST, sign))
            return [trial for trial in trials.get_all(sorted(numbers)) if trial.state in shown]

        trials = self._study.ask(study_id, choose)
        return copy.deepcopy(trials) if deepcopy else trials
