"""What a journal's records make of a study, one after the other, as Optuna's own storage has it."""

from collections.abc import Iterable
from typing import Any

from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from launch.state.journal import (
    CREATE_STUDY,
    CREATE_TRIAL,
    DELETE_STUDY,
    INTERMEDIATE_VALUE,
    OF_A_TRIAL,
    PARAM,
    STATE_VALUES,
    STUDY_SYSTEM_ATTR,
    STUDY_USER_ATTR,
    SYSTEM_ATTR,
    USER_ATTR,
)
from launch.state.packed_trials import PackedTrials
from launch.state.trial_records import Record, distribution_of, local_time, trial_of
from launch.state.trial_store import TrialStore


class Replay:
    """Studies and their trials."""

    def __init__(self, packed: PackedTrials) -> None:
        self._packed = packed
        self.studies: dict[int, FrozenStudy] = {}
        self.stores: dict[int, TrialStore] = {}
        self.made: dict[str, int] = {}
        """By writer, the last trial that he made."""
        self._next_study = 0
        self._next_trial = 0
        self._places: dict[int, tuple[int, int]] | None = None  # study and number, where they are not 0 and the id

    @property
    def is_plain(self) -> bool:
        """Whether the id of each trial is its number, as in every study that was not made with other tools."""
        return self._places is None and list(self.studies) == [0]

    def take(self, study: FrozenStudy, store: TrialStore) -> None:
        """Begin with one study, as an index tells it."""
        self.studies, self.stores = {0: study}, {0: store}
        self._next_study, self._next_trial, self._places = 1, len(store), None

    def place(self, trial_id: int) -> tuple[int, int]:
        """Study and number of a trial. Raises KeyError."""
        place = (0, trial_id) if self._places is None else self._places[trial_id]
        if not 0 <= trial_id < self._next_trial or place[0] not in self.stores:
            raise KeyError(f"there is no trial {trial_id}")
        return place

    def trial_id(self, study_id: int, number: int) -> int:
        """The id of a trial. Raises KeyError."""
        if self._places is None:
            found = number if study_id in self.stores and 0 <= number < len(self.stores[study_id]) else None
        else:
            found = next((one for one, place in self._places.items() if place == (study_id, number)), None)
        if found is None:
            raise KeyError(f"there is no trial {number} in study {study_id}")
        return found

    def get(self, trial_id: int) -> FrozenTrial:
        """A trial. Raises KeyError, StaleError."""
        study, number = self.place(trial_id)
        return self.stores[study].get(number)

    def apply(self, records: Iterable[Record]) -> None:
        """What more records make of it. One that changes what is not there, or has ended, changes nothing."""
        for record in records:
            self._apply(record)
        for store in self.stores.values():
            store.keep_drafts()

    def _apply(self, record: Record) -> None:
        op = record["op_code"]
        if op in OF_A_TRIAL:
            try:
                study, number = self.place(record["trial_id"])
            except KeyError:
                return
            self._change(self.stores[study], number, record)
        elif op == CREATE_STUDY:
            self._create_study(record["study_name"], record["directions"])
        elif record.get("study_id") not in self.studies:
            return
        elif op == CREATE_TRIAL:
            self._create_trial(record)
        elif op == DELETE_STUDY:
            self.studies.pop(record["study_id"])
            self.stores.pop(record["study_id"])
            self._name_places()
        elif op in (STUDY_USER_ATTR, STUDY_SYSTEM_ATTR):
            told = self.studies[record["study_id"]]
            if op == STUDY_USER_ATTR:
                told.user_attrs = told.user_attrs | record["user_attr"]
            else:
                told.system_attrs = told.system_attrs | record["system_attr"]

    def _create_study(self, name: str, directions: list[int]) -> None:
        if name in (study.study_name for study in self.studies.values()):
            return
        self.studies[self._next_study] = study_of(self._next_study, name, directions, {}, {})
        self.stores[self._next_study] = TrialStore(self._packed)
        self._next_study += 1

    def _create_trial(self, record: Record) -> None:
        study, trial_id = record["study_id"], self._next_trial
        if study != 0:
            self._name_places()
        store = self.stores[study]
        number = len(store)
        if self._places is not None:
            self._places[trial_id] = (study, number)
        store.add(trial_of(record, number, trial_id))
        self._next_trial += 1
        self.made[record["worker_id"]] = trial_id
        if record.get("state", TrialState.RUNNING) == TrialState.RUNNING:
            store.own(number, record["worker_id"])

    def _name_places(self) -> None:
        if self._places is None:
            self._places = {number: (0, number) for number in range(self._next_trial)}

    def _change(self, store: TrialStore, number: int, record: Record) -> None:
        trial, op = store.draft(number), record["op_code"]
        if trial is None:
            return
        if op == INTERMEDIATE_VALUE:
            trial.intermediate_values[record["step"]] = record["intermediate_value"]
        elif op == USER_ATTR:
            trial._user_attrs.update(record["user_attr"])
        elif op == SYSTEM_ATTR:
            trial._system_attrs.update(record["system_attr"])
        elif op == PARAM:
            distribution, name = distribution_of(record["distribution"]), record["param_name"]
            try:
                store.check_compatible(name, distribution)
            except ValueError:  # its writer has raised it
                return
            trial._params[name] = distribution.to_external_repr(record["param_value_internal"])
            trial._distributions[name] = distribution
        elif op == STATE_VALUES:
            self._change_state(store, trial, record)

    def _change_state(self, store: TrialStore, trial: FrozenTrial, record: Record) -> None:
        state = TrialState(record["state"])
        if state == trial.state == TrialState.RUNNING:  # another one had popped it
            return
        if record["values"] is not None:
            trial.values = record["values"]
        if state == TrialState.RUNNING:
            trial.datetime_start = local_time(record["datetime_start"])
            store.own(trial.number, record["worker_id"])
        if state.is_finished():
            trial.datetime_complete = local_time(record["datetime_complete"])
        store.change_state(trial, state)


def study_of(
    study_id: int, name: str, directions: list[int], user_attrs: dict[str, Any], system_attrs: dict[str, Any]
) -> FrozenStudy:
    """A study as Optuna has it."""
    return FrozenStudy(
        study_name=name,
        direction=None,
        directions=[StudyDirection(direction) for direction in directions],
        user_attrs=user_attrs,
        system_attrs=system_attrs,
        study_id=study_id,
    )
