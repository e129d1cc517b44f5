"""Settings that are trained again with fresh seeds: the best of one seed each may have been lucky."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from fsr.errors import UserError
from launch.state.trials import REPEATS, SEED, best_first, best_settings, repeats_among, search_trials


@dataclass(frozen=True)
class Repeats:
    """The best settings of a finished search and trial 0's, each to be trained with the same fresh seeds."""

    settings: tuple[FrozenTrial, ...]
    """Trials of the search that have these settings: trial 0, then the best, best first."""
    seeds: range

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
    def of_all(cls, trials: Sequence[FrozenTrial], seeds: range) -> "Repeats":
        """Every setting that the search has, finished or not: where nothing is chosen, nothing is awaited."""
        settings: list[FrozenTrial] = []
        for trial in search_trials(trials):
            alike = any(parameters_of(trial) == parameters_of(other) for other in settings)
            if trial.state != TrialState.FAIL and not alike:
                settings.append(trial)
        return cls(tuple(settings), seeds)

    def missing(self, trials: Sequence[FrozenTrial]) -> list[tuple[FrozenTrial, int]]:
        """Setting and seed of the repeats that are not there yet, all settings of a seed together."""
        there = [(trial.user_attrs[REPEATS], trial.user_attrs[SEED]) for trial in repeats_among(trials)]
        pairs = [(setting, seed) for seed in self.seeds for setting in self.settings]
        return [(setting, seed) for setting, seed in pairs if (setting.number, seed) not in there]

    def enqueue(self, study: optuna.Study) -> None:
        """Put those that are missing into the study, for the workers to claim before anything else."""
        for setting, seed in self.missing(study.get_trials(deepcopy=False)):
            study.enqueue_trial(parameters_of(setting), user_attrs={SEED: seed, REPEATS: setting.number})

    def __str__(self) -> str:
        best = ", ".join(str(trial.number) for trial in self.settings[1:])
        return f"the settings of trials 0 and {best} with seeds {self.seeds[0]} to {self.seeds[-1]}"


def enqueue_settings(study: optuna.Study, settings: Sequence[dict[str, Any]]) -> None:
    """Put those of these settings into the study that no trial of its search has, for the workers to claim in turn."""
    search = [trial for trial in search_trials(study.get_trials(deepcopy=False)) if trial.state != TrialState.FAIL]
    there = [parameters_of(trial) for trial in search]
    for params in settings:
        if params not in there:
            study.enqueue_trial(params)


def parameters_of(trial: FrozenTrial) -> dict[str, Any]:
    """The parameters of a trial, also of one that is waiting: Optuna has these in another place."""
    waiting = trial.state == TrialState.WAITING
    parameters: dict[str, Any] = trial.system_attrs.get("fixed_params", {}) if waiting else trial.params
    return parameters
