"""Settings that are trained again with fresh seeds: the best of one seed each may have been lucky."""

from collections.abc import Sequence
from dataclasses import dataclass

import optuna
from optuna.trial import FrozenTrial

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

    def missing(self, trials: Sequence[FrozenTrial]) -> list[tuple[FrozenTrial, int]]:
        """Setting and seed of the repeats that are not there yet, all settings of a seed together."""
        there = [(trial.user_attrs[REPEATS], trial.user_attrs[SEED]) for trial in repeats_among(trials)]
        pairs = [(setting, seed) for seed in self.seeds for setting in self.settings]
        return [(setting, seed) for setting, seed in pairs if (setting.number, seed) not in there]

    def enqueue(self, study: optuna.Study) -> None:
        """Put those that are missing into the study, for the workers to claim before anything else."""
        for setting, seed in self.missing(study.get_trials(deepcopy=False)):
            study.enqueue_trial(setting.params, user_attrs={SEED: seed, REPEATS: setting.number})

    def __str__(self) -> str:
        best = ", ".join(str(trial.number) for trial in self.settings[1:])
        return f"the settings of trials 0 and {best} with seeds {self.seeds[0]} to {self.seeds[-1]}"
