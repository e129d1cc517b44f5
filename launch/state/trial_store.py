"""The trials of a study by number, and what a claim has to know of all of them, kept as they change."""

from collections import Counter
from collections.abc import Collection, Iterable
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.trial import FrozenTrial, TrialState

from launch.state.packed_trials import Index, PackedTrials, in_full
from launch.state.trial_records import distribution_of, record_of, settings_key, text_of, trial_of
from launch.state.trials import CODE, DONE, is_repeat

UNFINISHED = (TrialState.RUNNING, TrialState.WAITING)
REMEMBERED = 1000  # packed trials that are kept at hand, though the last question was not for them
MOST = 10_000  # of one question that are kept: as many as samplers may be shown


class TrialStore:
    """Those that are packed are read when they are asked for; all others are at hand."""

    def __init__(self, packed: PackedTrials | None = None) -> None:
        self._packed = packed
        self._at_hand: dict[int, FrozenTrial] = {}
        self._drafts: dict[int, FrozenTrial] = {}
        self._keys: dict[int, list[int]] = {}  # of those at hand that have ended and did not fail
        self._remembered: dict[int, FrozenTrial] = {}
        self._states = Column(np.uint8)
        self._values = Column(np.float64)
        self._unfinished: dict[TrialState, set[int]] = {state: set() for state in UNFINISHED}
        self._failed: list[int] = []
        self._repeats: list[int] = []
        self._counts = Counter[TrialState]()
        self._tried = Counter[int]()
        self._tried_before: NDArray[np.int64] = np.empty(0, np.int64)  # sorted
        self._codes = Counter[str]()
        self._owners: dict[int, str] = {}
        self._ranges: dict[str, BaseDistribution] = {}

    def __len__(self) -> int:
        return len(self._states)

    def count(self, *states: TrialState) -> int:
        """How many trials are in one of these states."""
        return sum(self._counts[state] for state in states)

    def numbers(self, states: Collection[TrialState] | None = None) -> list[int]:
        """Numbers of the trials in these states, or of all."""
        if states is None:
            return list(range(len(self)))
        if all(state in UNFINISHED for state in states):
            return sorted(number for state in states for number in self._unfinished[state])
        found: list[int] = np.flatnonzero(np.isin(self._states.values, [int(state) for state in states])).tolist()
        return found

    def unfinished(self) -> list[int]:
        """Numbers of the trials that have not ended."""
        return self.numbers(UNFINISHED)

    def first(self, state: TrialState) -> int | None:
        """The lowest number of the trials that run, or that wait."""
        return min(self._unfinished[state], default=None)

    def newest(self, most: int) -> list[int]:
        """Numbers of so many trials that are complete or pruned, those with the highest."""
        done = np.isin(self._states.values, [int(state) for state in DONE])
        newest: list[int] = np.flatnonzero(done)[-most:].tolist()
        return newest

    def best(self, most: int, sign: int) -> list[int]:
        """Numbers of so many complete trials with the highest `sign` times value."""
        values = np.where(self._states.values == TrialState.COMPLETE, sign * self._values.values, np.nan)
        known = np.flatnonzero(~np.isnan(values))
        if len(known) > most:
            known = known[np.argpartition(-values[known], most)[:most]]
        best: list[int] = known.tolist()
        return best

    def get(self, number: int) -> FrozenTrial:
        """A trial. Raises StaleError if it cannot be read."""
        return self.get_all([number])[0]

    def get_all(self, numbers: Iterable[int]) -> list[FrozenTrial]:
        """Trials. Raises StaleError if one cannot be read."""
        numbers, remembered = list(numbers), self._remembered
        missing = [number for number in numbers if number not in self._at_hand and number not in remembered]
        read = dict(zip(missing, self._packed.trials(missing), strict=True)) if self._packed and missing else {}
        if read and len(numbers) <= MOST:
            if len(remembered) + len(read) > REMEMBERED:
                self._remembered = {number: remembered[number] for number in numbers if number in remembered}
            self._remembered |= read
        return [self._at_hand.get(number) or remembered.get(number) or read[number] for number in numbers]

    def has_done(self, code: str) -> bool:
        """Whether this code version has finished or pruned a trial."""
        return self._codes[code] > 0

    def failed(self) -> list[int]:
        """Numbers of the trials that failed."""
        return self._failed

    def repeats(self) -> int:
        """How many trials are repeats that have not failed."""
        return int((self._states.values[self._repeats] != TrialState.FAIL).sum())

    def has_tried(self, key: int) -> bool:
        """Whether a trial that did not fail has, or was asked to have, the parameters with this `settings_key`."""
        if self._tried[key] > 0:
            return True
        place = np.searchsorted(self._tried_before, key)
        return bool(place < len(self._tried_before) and self._tried_before[place] == key)

    def owner(self, number: int) -> str | None:
        """Who let a trial run, of those that have not ended."""
        return self._owners.get(number)

    def check_compatible(self, name: str, distribution: BaseDistribution) -> None:
        """Raise ValueError if a parameter of this name had another kind of range before."""
        known = self._ranges.setdefault(name, distribution)
        if known is not distribution:
            check_distribution_compatibility(known, distribution)

    def add(self, trial: FrozenTrial) -> None:
        """A new trial."""
        self._states.append(int(trial.state))
        self._values.append(np.nan)
        self._counts[trial.state] += 1
        self._at_hand[trial.number] = trial
        self._ranges = trial.distributions | self._ranges
        self._tried.update(asked_keys(trial))
        if is_repeat(trial):
            self._repeats.append(trial.number)
        if trial.state in UNFINISHED:
            self._unfinished[trial.state].add(trial.number)
        else:
            self._end(trial)

    def own(self, number: int, writer: str) -> None:
        """This writer lets a trial run."""
        self._owners[number] = writer

    def draft(self, number: int) -> FrozenTrial | None:
        """A trial to be changed; None if it has ended. Who has got the trial itself before keeps it as it was."""
        trial = self._drafts.get(number)
        if trial is None:
            known = self._at_hand.get(number)
            if known is None or known.state.is_finished():
                return None
            trial = self._drafts[number] = self._at_hand[number] = copy_of(known)
        return None if trial.state.is_finished() else trial

    def replace(self, trial: FrozenTrial) -> None:
        """A trial that had not ended is like this one now."""
        before = self._at_hand[trial.number].state
        changed = self._at_hand[trial.number] = copy_of(trial)
        changed.state = before
        if trial.state != before:
            self.change_state(changed, trial.state)

    def keep_drafts(self) -> None:
        """From now on somebody may have got the trials."""
        self._drafts.clear()

    def change_state(self, trial: FrozenTrial, state: TrialState) -> None:
        """A draft comes to another state, after all else that changes with it."""
        self._unfinished[trial.state].discard(trial.number)
        self._counts[trial.state] -= 1
        self._counts[state] += 1
        self._states.values[trial.number] = state
        trial.state = state
        if state in UNFINISHED:
            self._unfinished[state].add(trial.number)
        else:
            self._end(trial)

    def _end(self, trial: FrozenTrial) -> None:
        self._owners.pop(trial.number, None)
        if trial.state == TrialState.FAIL:
            self._failed.append(trial.number)
            self._tried.subtract(asked_keys(trial))
            return
        self._tried[settings_key(trial.params)] += 1
        self._keys[trial.number] = [settings_key(trial.params), *asked_keys(trial)]
        if trial.values:
            self._values.values[trial.number] = trial.values[0]
        for version in trial.user_attrs.get(CODE, [])[-1:]:
            self._codes[version] += 1

    def told(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """What an index tells of all of them: some fields of it, and its arrays."""
        unfinished = self.get_all(self.unfinished())
        fields = {
            "unfinished": [record_of(trial) | {"number": trial.number} for trial in unfinished],
            "codes": dict(self._codes),
            "repeats": self._repeats,
            "ranges": {name: text_of(range_) for name, range_ in self._ranges.items()},
        }
        return fields, {
            "where": np.full(len(self), -1, np.int64),
            "states": self._states.values,
            "values": self._values.values,
            "tried": np.union1d(self._tried_before, np.array([*chain.from_iterable(self._keys.values())], np.int64)),
        }

    def ended(self) -> list[FrozenTrial]:
        """The trials that have ended and are not packed."""
        return [trial for trial in self._at_hand.values() if trial.state not in UNFINISHED]

    def forget_packed(self, tried: NDArray[np.int64]) -> None:
        """Keep at hand no more what is packed by now; `tried` is the index's array."""
        self._tried_before = tried
        packed = self._packed
        assert packed is not None, "only what a journal has is packed"
        for number in [trial.number for trial in self.ended() if packed.has(trial.number)]:
            del self._at_hand[number]
            self._keys.pop(number, None)

    @classmethod
    def of(cls, packed: PackedTrials, index: Index, arrays: dict[str, NDArray[Any]]) -> "TrialStore":
        """What an index tells of a study, by which `packed` goes. Raises ValueError if it makes no sense."""
        store = cls(packed)
        states, where = arrays["states"], arrays["where"]
        if not len(states) == len(arrays["values"]) == len(where):
            raise ValueError("its arrays are not of one length")
        store._states, store._values = Column(np.uint8, states), Column(np.float64, arrays["values"])
        store._counts = Counter({state: int((states == state).sum()) for state in TrialState})
        store._tried_before, store._codes = arrays["tried"], Counter(index["codes"])
        store._ranges = {name: distribution_of(text) for name, text in index["ranges"].items()}
        store._repeats = index["repeats"]
        store._failed = np.flatnonzero(states == TrialState.FAIL).tolist()
        for record in index["unfinished"]:
            trial = trial_of(in_full(record, index["distributions"]), record["number"], record["number"])
            store._at_hand[trial.number] = trial
            store._unfinished[trial.state].add(trial.number)
            store._tried.update(asked_keys(trial))
        ended = np.isin(states, [int(state) for state in TrialState if state.is_finished()])
        if (where[ended] < 0).any() or sorted(store._at_hand) != np.flatnonzero(~ended).tolist():
            raise ValueError("it lacks trials")
        if not all(0 <= number < len(states) for number in store._repeats):
            raise ValueError("it tells of repeats that are none")
        return store


def copy_of(trial: FrozenTrial) -> FrozenTrial:
    """A trial that may be changed without changing the other."""
    return FrozenTrial(
        number=trial.number,
        trial_id=trial._trial_id,
        state=trial.state,
        value=None,
        values=trial.values,
        datetime_start=trial.datetime_start,
        datetime_complete=trial.datetime_complete,
        params=trial.params.copy(),
        distributions=trial.distributions.copy(),
        user_attrs=trial.user_attrs.copy(),
        system_attrs=trial.system_attrs.copy(),
        intermediate_values=trial.intermediate_values.copy(),
    )


def asked_keys(trial: FrozenTrial) -> list[int]:
    """The `settings_key` of the parameters that a trial was asked to have; nothing where it was not asked."""
    asked = trial.system_attrs.get("fixed_params")
    return [] if asked is None else [settings_key(asked)]


class Column:
    """An array that grows."""

    def __init__(self, kind: type[np.generic], values: NDArray[Any] | None = None) -> None:
        self._size = 0 if values is None else len(values)
        self._room = np.zeros(max(1024, 2 * self._size), kind)
        if values is not None:
            self._room[: self._size] = values

    def __len__(self) -> int:
        return self._size

    @property
    def values(self) -> NDArray[Any]:
        """The values, which may be written to."""
        return self._room[: self._size]

    def append(self, value: Any) -> None:
        """One more value."""
        if self._size == len(self._room):
            self._room = np.concatenate([self._room, np.zeros_like(self._room)])
        self._room[self._size] = value
        self._size += 1
