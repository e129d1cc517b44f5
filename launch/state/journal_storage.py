"""Optuna's storage of a study over its journal: it reads what is new, and never everything."""

import copy
import os
import threading
import uuid
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.exceptions import DuplicatedStudyError
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from fsr.errors import UserError
from fsr.lock import FileLock
from launch.state.journal import (
    CREATE_STUDY,
    CREATE_TRIAL,
    DELETE_STUDY,
    INTERMEDIATE_VALUE,
    PARAM,
    STATE_VALUES,
    STUDY_SYSTEM_ATTR,
    STUDY_USER_ATTR,
    SYSTEM_ATTR,
    USER_ATTR,
    Position,
    RecordCheck,
    StudyJournal,
)
from launch.state.packed_trials import PACKED, Index, PackedTrials, StaleError
from launch.state.replay import Replay, study_of
from launch.state.study_storage import AT_ONCE, StudyStorage
from launch.state.trial_records import Record, record_of
from launch.state.trial_store import TrialStore

PACK = 2000  # records, of a hundred or two of trials, after which is packed what has ended
AT_MOST = 100_000  # records that are read without packing, where there are more to be read: all are in memory
LEAP = 1 << 18  # bytes of the journal that are left out rather than read, where an index tells what they make
Answer = TypeVar("Answer")


class JournalStorage(StudyStorage):
    """The storage of one process, whose threads may share it. Raises as Optuna's storages do, and DamagedError."""

    def __init__(self, journal: StudyJournal) -> None:
        self._journal = journal
        self._packed = PackedTrials(journal.path.with_name(PACKED))
        self._lock = threading.RLock()
        self._prefix = uuid.uuid4().hex
        self._pending: list[Record] | None = None
        self._replay = Replay(self._packed)
        self._pack_at = PACK
        self._held: set[int] = set()
        with self._lock:
            self._begin()
            self._read()

    def __reduce__(self) -> tuple[Any, ...]:
        return open_journal, (self._journal.path,)

    # What is read

    def ask(self, study_id: int, question: Callable[[TrialStore], Answer]) -> Answer:
        """What the trials of a study say, as they are now. Raises KeyError for a study that is not there."""
        return self._now(lambda replay: question(replay.stores[self._known(study_id)]))

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """A trial by its id. Raises KeyError."""
        with self._lock:
            if trial_id in self._held:
                return self._replay.get(trial_id)
        return self._now(lambda replay: replay.get(trial_id))

    def catch_up(self) -> None:
        """Read what is new."""
        with self._lock:
            self._read()

    def unread(self) -> int:
        """Bytes of the journal that are new."""
        return self._journal.unread()

    def hold(self, trial_id: int) -> None:
        """From now on nobody but this storage changes a trial: it is known without reading."""
        with self._lock:
            self.get_trial(trial_id)
            self._held.add(trial_id)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """The trials of a study in these states, by number. Raises KeyError."""
        wanted = None if states is None else [state for state in TrialState if state in states]
        trials = self.ask(study_id, lambda store: store.get_all(store.numbers(wanted)))
        return copy.deepcopy(trials) if deepcopy else trials

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        """The id of a trial. Raises KeyError."""
        return self._now(lambda replay: replay.trial_id(study_id, trial_number))

    def get_all_studies(self) -> list[FrozenStudy]:
        """All studies."""
        return self._now(lambda replay: copy.deepcopy(list(replay.studies.values())))

    def get_study_id_from_name(self, study_name: str) -> int:
        """The id of a study. Raises KeyError."""
        with self._lock:
            if study_name not in self._names():
                self._read()
            return self._names()[study_name]

    def get_study_name_from_id(self, study_id: int) -> str:
        """The name of a study. Raises KeyError."""
        return self._unchanged(study_id).study_name

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """The directions of a study. Raises KeyError."""
        return self._unchanged(study_id).directions

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """The user attributes of a study. Raises KeyError."""
        return self._study(study_id).user_attrs

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """The system attributes of a study. Raises KeyError."""
        return self._study(study_id).system_attrs

    # What is written

    @contextmanager
    def together(self) -> Iterator[None]:
        """Write what is set inside as one append, under one lock and with one fsync."""
        with self._lock:
            if self._pending is not None:
                yield
                return
            self._pending = []
            try:
                yield
            finally:
                self._flush()
                self._pending = None

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        """A new study. Raises DuplicatedStudyError."""
        name = f"no-name-{uuid.uuid4()}" if study_name is None else study_name
        with self._lock:
            if name in (study.study_name for study in self.get_all_studies()):
                raise DuplicatedStudyError(f"there is a study {name!r}")
            self._write(CREATE_STUDY, study_name=name, directions=[int(direction) for direction in directions])
            return self.get_study_id_from_name(name)

    def delete_study(self, study_id: int) -> None:
        """Delete a study. Raises KeyError."""
        with self._lock:
            self._study(study_id)
            self._write(DELETE_STUDY, study_id=study_id)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Set an attribute. Raises KeyError."""
        with self._lock:
            self._study(study_id)
            self._write(STUDY_USER_ATTR, study_id=study_id, user_attr={key: value})

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Set an attribute. Raises KeyError."""
        with self._lock:
            self._study(study_id)
            self._write(STUDY_SYSTEM_ATTR, study_id=study_id, system_attr={key: value})

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """A new trial that runs, or one like the template; its id. Raises KeyError."""
        with self._lock:
            self._study(study_id)
            made = {"datetime_start": now()} if template_trial is None else record_of(template_trial)
            self._write(CREATE_TRIAL, study_id=study_id, **made)
            return self._now(lambda replay: replay.made[self._writer])

    def add_trials(self, study_id: int, trials: Iterable[FrozenTrial]) -> None:
        """Add many trials, some hundred with each append. Raises KeyError."""
        with self._lock:
            self._study(study_id)
            rest = iter(trials)
            while some := list(islice(rest, AT_ONCE)):
                with self.together():
                    for trial in some:
                        self._write(CREATE_TRIAL, study_id=study_id, **record_of(trial))

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """Set a parameter. Raises KeyError, UpdateFinishedTrialError, ValueError for another kind of range."""
        with self._lock:
            self._check(trial_id)
            study = self._replay.place(trial_id)[0]
            self._replay.stores[study].check_compatible(param_name, distribution)
            told = {"param_name": param_name, "param_value_internal": param_value_internal}
            self._write(PARAM, trial_id=trial_id, **told, distribution=distribution_to_json(distribution))

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """Change state and values; False if a waiting trial that is to run was taken by another one.

        Raises KeyError, UpdateFinishedTrialError.
        """
        with self._lock:
            before = self._check(trial_id)
            if before.state != TrialState.WAITING and state == TrialState.RUNNING:
                return False
            name = {TrialState.RUNNING: "datetime_start", TrialState.WAITING: None}.get(state, "datetime_complete")
            time = {} if name is None else {name: now()}
            self._write(
                STATE_VALUES, trial_id=trial_id, state=int(state), values=values and [*map(float, values)], **time
            )
            if state != TrialState.RUNNING:
                return True
            self._flush()
            study, number = self._replay.place(trial_id)
            return self.ask(study, lambda store: store.owner(number)) == self._writer

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """Set the value at a step. Raises KeyError, UpdateFinishedTrialError."""
        with self._lock:
            self._check(trial_id)
            self._write(INTERMEDIATE_VALUE, trial_id=trial_id, step=step, intermediate_value=intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set an attribute. Raises KeyError, UpdateFinishedTrialError."""
        with self._lock:
            self._check(trial_id)
            self._write(USER_ATTR, trial_id=trial_id, user_attr={key: value})

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Set an attribute. Raises KeyError, UpdateFinishedTrialError."""
        with self._lock:
            self._check(trial_id)
            self._write(SYSTEM_ATTR, trial_id=trial_id, system_attr={key: value})

    # How

    @property
    def _writer(self) -> str:
        """Who writes: a forked process is another one, and so is a thread."""
        return f"{self._prefix}-{os.getpid()}-{threading.get_ident()}"

    def _known(self, study_id: int) -> int:
        if study_id not in self._replay.studies:
            raise KeyError(f"there is no study {study_id}")
        return study_id

    def _names(self) -> dict[str, int]:
        return {study.study_name: study_id for study_id, study in self._replay.studies.items()}

    def _unchanged(self, study_id: int) -> FrozenStudy:
        """A study of which something is asked that never changes: once it is known, nothing need be read."""
        with self._lock:
            return self._replay.studies.get(study_id) or self._study(study_id)

    def _study(self, study_id: int) -> FrozenStudy:
        return self._now(lambda replay: replay.studies[self._known(study_id)])

    def _check(self, trial_id: int) -> FrozenTrial:
        """A trial that may be changed. Raises KeyError, UpdateFinishedTrialError."""
        trial = self.get_trial(trial_id)
        self.check_trial_is_updatable(trial_id, trial.state)
        return trial

    def _write(self, op: int, **fields: Any) -> None:
        record = {"op_code": op, "worker_id": self._writer, **fields}
        if self._pending is None:
            self._append([record])
        else:
            self._pending.append(record)

    def _flush(self) -> None:
        if self._pending:
            records, self._pending[:] = list(self._pending), []
            self._append(records)

    def _append(self, records: list[Record]) -> None:
        self._journal.append_logs(records)
        held = [record for record in records if record.get("trial_id") in self._held]
        self._replay.apply(held)  # and once more when they are read, which changes nothing

    def _now(self, question: Callable[[Replay], Answer]) -> Answer:
        """What is known once all is read. What is packed and proves damaged is read from the journal again."""
        with self._lock:
            self._read()
            try:
                return question(self._replay)
            except StaleError:
                self._start_anew()
                self._read()
                return question(self._replay)

    def _read(self) -> None:
        """Read what is new, or begin where an index ends that tells of most of it."""
        if self._journal.unread() > LEAP:
            self._begin()
        while records := self._journal.read_new():
            self._replay.apply(records)
            due = self._journal.position.records - self._pack_at
            if due >= AT_MOST or (due >= 0 and not self._journal.unread()):
                self._pack()

    def _begin(self) -> None:
        """Begin where the index ends, if there is one that fits the journal and tells more than is known."""
        found = self._index()
        if found is None or found[0]["offset"] <= self._journal.position.offset:
            return
        index, arrays = found
        try:
            store = TrialStore.of(self._packed, index, arrays)
            study = study_of(0, index["name"], index["directions"], index["user_attrs"], index["system_attrs"])
        except (ValueError, LookupError, TypeError):
            return
        self._packed.take(index, arrays["where"])
        self._replay.take(study, store)
        self._journal.position = Position(index["offset"], index["records"])
        self._journal.check = RecordCheck(index["name"], len(store))
        self._pack_at = index["records"] + PACK

    def _index(self) -> tuple[Index, dict[str, NDArray[Any]]] | None:
        """The index and its arrays, if there is one that fits the journal."""
        found = self._packed.read()
        return found if found and self._journal.mark(found[0]["offset"]) == found[0]["mark"] else None

    def _start_anew(self) -> None:
        """Begin at the journal's first record, and let nobody begin with what is packed."""
        with suppress(OSError):  # of who may only read, or of what stands there instead
            self._packed.remove()
        self._packed.forget()
        self._replay = Replay(self._packed)
        self._journal.position, self._journal.check = Position(), RecordCheck()
        self._pack_at = PACK

    def _pack(self) -> None:
        """Pack what has ended, or go by the index of who has packed it meanwhile.

        A study works without: where the folder is not this user's, or the disk is full, it is tried again later.
        """
        self._pack_at = self._journal.position.records + PACK
        if not self._replay.is_plain or not os.access(self._journal.path, os.W_OK):
            return
        lock = self._packed.lock()
        with suppress(OSError, UserError):
            if lock.try_acquire():
                try:
                    self._pack_under_lock(self._replay.stores[0])
                finally:
                    lock.release()

    def _pack_under_lock(self, store: TrialStore) -> None:
        found, position = self._index(), self._journal.position
        if found is None and self._packed.records:
            return  # somebody removed it; who starts next packs all anew
        if found is not None:
            index, arrays = found
            self._packed.take(index, arrays["where"])
            store.forget_packed(arrays["tried"])
        if position.records - self._packed.records >= PACK:
            told, arrays = store.told()
            study, mark = self._replay.studies[0], self._journal.mark(position.offset)
            assert mark is not None, f"{self._journal.path} is shorter than what was read of it"
            self._packed.pack(
                {
                    "offset": position.offset,
                    "records": position.records,
                    "mark": mark,
                    "name": study.study_name,
                    "directions": [int(direction) for direction in study.directions],
                    "user_attrs": study.user_attrs,
                    "system_attrs": study.system_attrs,
                    **told,
                },
                arrays,
                store.ended(),
            )
            store.forget_packed(arrays["tried"])


def open_journal(path: Path) -> JournalStorage:
    """The storage over the journal of this path. Raises DamagedError."""
    return JournalStorage(StudyJournal(path, FileLock(path.with_name(f"{path.name}.lock"))))


def now() -> str:
    """The time, as records have it."""
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")
