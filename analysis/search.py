"""A study without its repeats, as a second study of the same storage: what Optuna's statistics may be taken of.

Repeats are fresh seeds of a few settings, which were chosen because they are good: to importance they would be evidence
for whatever these have in common.
"""

from collections.abc import Container, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from launch.state.trials import damage_of, search_trials


def search_name(study: str) -> str:
    """The name of a study's search."""
    return f"{study} (search)"


class WithSearch(BaseStorage):
    """A storage that shows, beside one of its studies, that study's search: its trials but repeats and damaged ones.

    It is read anew each time, so it lives as the study does; trials have the numbers that they have in the study. What
    is written of the search is written of the study; the search itself can be neither removed nor extended.
    """

    def __init__(self, storage: BaseStorage, study: str) -> None:
        """Raises KeyError if the storage has no such study."""
        self._storage = storage
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

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """As of the study."""
        return self._storage.get_study_directions(self._real(study_id))

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """As of the study."""
        return self._storage.get_study_user_attrs(self._real(study_id))

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """As of the study."""
        return self._storage.get_study_system_attrs(self._real(study_id))

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Write it of the study."""
        self._storage.set_study_user_attr(self._real(study_id), key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Write it of the study."""
        self._storage.set_study_system_attr(self._real(study_id), key, value)

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        """As the storage does."""
        return self._storage.create_new_study(directions, study_name)

    def delete_study(self, study_id: int) -> None:
        """As the storage does; not the search."""
        self._storage.delete_study(self._own(study_id))

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """As the storage does; not of the search."""
        return self._storage.create_new_trial(self._own(study_id), template_trial)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """As the storage does."""
        return self._storage.get_trial(trial_id)

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """As the storage does."""
        self._storage.set_trial_param(trial_id, param_name, param_value_internal, distribution)

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """As the storage does."""
        return self._storage.set_trial_state_values(trial_id, state, values)

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """As the storage does."""
        self._storage.set_trial_intermediate_value(trial_id, step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """As the storage does."""
        self._storage.set_trial_user_attr(trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """As the storage does."""
        self._storage.set_trial_system_attr(trial_id, key, value)
