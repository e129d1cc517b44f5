"""Settings that are trained again with fresh seeds: the best of one seed each may have been lucky."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from fsr.errors import UserError
from launch.state.study_storage import storage_of, waiting
from launch.state.trials import REPEATS, SEED, best_first, best_settings, repeats_among, search_trials

MOST_NAMED = 20  # settings in one sentence


@dataclass(frozen=True)
class Repeats:
    """The best settings of a finished search and trial 0's, each to be trained with the same fresh seeds."""

    settings: tuple[FrozenTrial, ...]
    """Trials of the search that have these settings: trial 0, then the best, best first."""
    seeds: range
    to_come: int = 0
    """Further settings, of a grid, that no trial has yet."""

    @classmethod
    def of(cls, trials: Sequence[FrozenTrial], best: int, seeds: range) -> "Repeats":
        """Choose them. Raises UserError if the search is not finished.

        The scores that the choice rests on are of the search alone, so that asking again comes to the same choice.
        """
        search, best_trials = search_trials(trials), best_first(trials)
        unfinished = sum(not trial.state.is_finished() for trial in search)
        if unfinished or not best_trials:
            raise UserError(
                f"--repeat takes the best settings of a finished search, and this one has {len(best_trials)} complete "
                f"and {unfinished} unfinished trials; run the command without --repeat first"
            )
        return cls(tuple(best_settings(trials, best)), seeds)

    @classmethod
    def of_all(cls, trials: Sequence[FrozenTrial], seeds: range, to_come: int = 0) -> "Repeats":
        """Every setting that the search has, finished or not: where nothing is chosen, nothing is awaited."""
        settings: dict[Hashable, FrozenTrial] = {}
        for trial in search_trials(trials):
            if trial.state != TrialState.FAIL:
                settings.setdefault(key_of(parameters_of(trial)), trial)
        return cls(tuple(settings.values()), seeds, to_come)

    def missing(self, trials: Sequence[FrozenTrial]) -> list[tuple[FrozenTrial, int]]:
        """Setting and seed of the repeats that are not there yet, all settings of a seed together; without those of
        settings to come."""
        there = {(trial.user_attrs[REPEATS], trial.user_attrs[SEED]) for trial in repeats_among(trials)}
        pairs = [(setting, seed) for seed in self.seeds for setting in self.settings]
        return [(setting, seed) for setting, seed in pairs if (setting.number, seed) not in there]

    def number_missing(self, trials: Sequence[FrozenTrial]) -> int:
        """How many repeats are not there yet, with those of settings to come."""
        return len(self.missing(trials)) + self.to_come * len(self.seeds)

    def enqueue(self, study: optuna.Study) -> None:
        """Put those that are missing into the study, for the workers to claim before anything else."""
        missing = self.missing(study.get_trials(deepcopy=False))
        trials = (waiting(parameters_of(setting), {SEED: seed, REPEATS: setting.number}) for setting, seed in missing)
        storage_of(study).add_trials(study._study_id, trials)

    def __str__(self) -> str:
        seeds = f"with seeds {self.seeds[0]} to {self.seeds[-1]}"
        if len(self.settings) + self.to_come > MOST_NAMED:
            return f"{len(self.settings) + self.to_come} settings {seeds}"
        best = ", ".join(str(trial.number) for trial in self.settings[1:])
        return f"the settings of trials 0 and {best} {seeds}"


def enqueue_settings(study: optuna.Study, settings: Sequence[dict[str, Any]]) -> None:
    """Put those of these settings into the study that no trial of its search has, for the workers to claim in turn."""
    new = not_there(settings, study.get_trials(deepcopy=False))
    storage_of(study).add_trials(study._study_id, (waiting(params, {}) for params in new))


def not_there(settings: Sequence[dict[str, Any]], trials: Sequence[FrozenTrial]) -> Iterator[dict[str, Any]]:
    """Those of these settings that no trial of the search has which did not fail."""
    search = [trial for trial in search_trials(trials) if trial.state != TrialState.FAIL]
    there = {key_of(parameters_of(trial)) for trial in search}
    return (params for params in settings if key_of(params) not in there)


def key_of(params: dict[str, Any]) -> Hashable:
    """Parameters as what equal ones share, to look them up among many."""
    return frozenset(params.items())


def parameters_of(trial: FrozenTrial) -> dict[str, Any]:
    """The parameters of a trial, also of one that is waiting: Optuna has these in another place."""
    waiting = trial.state == TrialState.WAITING
    parameters: dict[str, Any] = trial.system_attrs.get("fixed_params", {}) if waiting else trial.params
    return parameters
