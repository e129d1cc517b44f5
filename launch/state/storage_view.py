"""A storage of Optuna's that shows another one, in which all that is not told in another way is as it is there."""

from collections.abc import Container, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState


class StorageView(BaseStorage):
    """Passes everything on to the storage that it shows."""

    def __init__(self, storage: BaseStorage) -> None:
        self._storage = storage

    def _real(self, study_id: int) -> int:
        """The study of the storage that a study of the view is."""
        return study_id

    def _own(self, study_id: int) -> int:
        """The same, of a study that is to be changed. Raises KeyError for one that cannot be."""
        return study_id

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """As in the storage."""
        return self._storage.get_all_trials(self._real(study_id), deepcopy, states)

    def get_all_studies(self) -> list[FrozenStudy]:
        """As in the storage."""
        return self._storage.get_all_studies()

    def get_study_id_from_name(self, study_name: str) -> int:
        """As in the storage."""
        return self._storage.get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        """As in the storage."""
        return self._storage.get_study_name_from_id(study_id)

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
        """As the storage does."""
        self._storage.delete_study(self._own(study_id))

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """As the storage does."""
        return self._storage.create_new_trial(self._own(study_id), template_trial)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """As the storage does."""
        return self._storage.get_trial(trial_id)

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        """As the storage does."""
        return self._storage.get_trial_id_from_study_id_trial_number(self._real(study_id), trial_number)

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
