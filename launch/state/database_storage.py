"""Optuna's storage of a study in a database, which reads what is new of it once it has read all."""

from collections.abc import Callable
from typing import TypeVar

from optuna.storages import RDBStorage, get_storage

from launch.state.storage_view import StorageView
from launch.state.study_storage import StudyStorage
from launch.state.trial_store import TrialStore

Answer = TypeVar("Answer")


class DatabaseStorage(StorageView, StudyStorage):
    """Optuna's own storage, cache and all. Whoever opens it reads every trial, the first time that he asks."""

    def __init__(self, url: str) -> None:
        """Raises whatever Optuna, SQLAlchemy or the driver do, with the URL's password in it."""
        super().__init__(get_storage(RDBStorage(url)))
        self._stores: dict[int, TrialStore] = {}

    def ask(self, study_id: int, question: Callable[[TrialStore], Answer]) -> Answer:
        """What the trials of a study say, as they are now. Raises KeyError for a study that is not there."""
        trials = self._storage.get_all_trials(study_id, deepcopy=False)
        store = self._stores.setdefault(study_id, TrialStore())
        for number in store.unfinished():
            store.replace(trials[number])
        for trial in trials[len(store) :]:
            store.add(trial)
        return question(store)
