"""The known settings of a study, which are tried before its sampler is asked: which of them is to be tried next."""

from collections.abc import Callable, Sequence
from typing import Any

from optuna.trial import FrozenTrial

from launch.state.trial_records import settings_key
from launch.state.trial_store import TrialStore

FEW = 100  # settings that are all looked at each time


class KnownSettings:
    """Goes on where it was: a grid may have a million of them, of which each claim looks at the next."""

    def __init__(self, settings: Sequence[dict[str, Any]]) -> None:
        self._settings = settings
        self._few = [settings_key(each) for each in settings] if len(settings) <= FEW else []
        self._trials: TrialStore | None = None
        self._begin()

    def _begin(self) -> None:
        self._places: dict[int, int] = {}  # by `settings_key`, of those that a trial was ever asked to have
        self._failed: dict[int, tuple[int, bool]] = {}  # by trial: its key, whether its setting is to blame

    def untried(self, trials: TrialStore, is_to_blame: Callable[[FrozenTrial], bool]) -> dict[str, Any] | None:
        """The first that no trial has.

        One whose trial failed gets another try, unless the setting `is_to_blame` for that.
        """
        if self._few and all(map(trials.has_tried, self._few)):
            return None  # as in a search, mostly: none that failed need be read
        if trials is not self._trials:  # what was seen of others says nothing of these
            self._trials = trials
            self._begin()
        for trial in trials.get_all(number for number in trials.failed() if number not in self._failed):
            asked = trial.system_attrs.get("fixed_params", trial.params)
            self._failed[trial.number] = settings_key(asked), is_to_blame(trial)
        failed = {key for key, _ in self._failed.values()}
        while len(self._places) < len(self._settings):
            key = settings_key(self._settings[len(self._places)])
            if key not in failed and not trials.has_tried(key):
                break
            if key in self._places:  # said twice
                key = -1 - len(self._places)
            self._places[key] = len(self._places)
        again = failed - {key for key, to_blame in self._failed.values() if to_blame}
        places = [self._places[key] for key in again if key in self._places and not trials.has_tried(key)]
        place = min(places, default=len(self._places))
        return self._settings[place] if place < len(self._settings) else None
