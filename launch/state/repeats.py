"""Settings that are trained again with fresh seeds: the best of one seed each may have been lucky."""

from collections.abc import Sequence
from dataclasses import dataclass

import optuna
from optuna.trial import FrozenTrial, TrialState

from fsr.errors import UserError

# User attributes of a repeat; a trial of the search has the base's seed and none of them.
SEED = "seed"
REPEATS = "repeats"  # number of the trial whose setting it has


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
        search = [trial for trial in trials if not is_repeat(trial)]
        unfinished = sum(not trial.state.is_finished() for trial in search)
        complete = [trial for trial in search if trial.state == TrialState.COMPLETE]
        if unfinished or not complete:
            raise UserError(
                f"--repeat takes the best settings of a finished search, and this one has {len(complete)} complete and "
                f"{unfinished} unfinished trials; run the command without --repeat first"
            )
        chosen = [search[0]]
        for trial in sorted(complete, key=lambda trial: (-(trial.value or 0.0), trial.number)):
            if len(chosen) <= best and all(trial.params != other.params for other in chosen):
                chosen.append(trial)
        return cls(tuple(chosen), seeds)

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


def is_repeat(trial: FrozenTrial) -> bool:
    """Whether a trial is a setting of the search again, with another seed."""
    return SEED in trial.user_attrs


def repeats_among(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The repeats, without those that failed."""
    return [trial for trial in trials if is_repeat(trial) and trial.state != TrialState.FAIL]
