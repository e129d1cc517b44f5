"""A study without its repeats, as a second study of the same storage: what Optuna's statistics may be taken of.

Repeats are fresh seeds of a few settings, which were chosen because they are good: to importance they would be evidence
for whatever these have in common.
"""

from collections.abc import Container

from optuna.storages import BaseStorage
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from launch.state.storage_view import StorageView
from launch.state.trials import damage_of, search_trials


def search_name(study: str) -> str:
    """The name of a study's search."""
    return f"{study} (search)"


class WithSearch(StorageView):
    """A storage that shows, beside one of its studies, that study's search: its trials but repeats and damaged ones.

    It is read anew each time, so it lives as the study does; trials have the numbers that they have in the study. What
    is written of the search is written of the study; the search itself can be neither removed nor extended.
    """

    def __init__(self, storage: BaseStorage, study: str) -> None:
        """Raises KeyError if the storage has no such study."""
        super().__init__(storage)
        self._study_id = storage.get_study_id_from_name(study)
        self.search_id = -1 - self._study_id
        self._name = search_name(study)

    def _real(self, study_id: int) -> int:
        return self._study_id if study_id == self.search_id else study_id

    def _own(self, study_id: int) -> int:
        """Raises KeyError for the search, as for a study that is not there."""
        if study_id == self.search_id:
            raise KeyError(f"{self._name} is a view of a study and cannot be changed")
        return study_id

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """The trials of a study, or of the search."""
        trials = self._storage.get_all_trials(self._real(study_id), deepcopy, states)
        if study_id != self.search_id:
            return trials
        return [trial for trial in search_trials(trials) if damage_of(trial) is None]

    def get_all_studies(self) -> list[FrozenStudy]:
        """The storage's, each study's search behind it."""
        studies = self._storage.get_all_studies()
        found = [study for study in studies if study._study_id == self._study_id]
        searches = [
            FrozenStudy(
                study_name=self._name,
                direction=None,
                directions=study.directions,
                user_attrs=study.user_attrs,
                system_attrs=study.system_attrs,
                study_id=self.search_id,
            )
            for study in found
        ]
        return [*studies, *searches]

    def get_study_id_from_name(self, study_name: str) -> int:
        """The id of a study or of the search."""
        return self.search_id if study_name == self._name else self._storage.get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        """The name of a study or of the search."""
        return self._name if study_id == self.search_id else self._storage.get_study_name_from_id(study_id)
