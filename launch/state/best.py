"""Which trial of a study is the best."""

from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState

from launch.state.repeats import is_repeat


def search_trials(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials of the search, without the repeats."""
    return [trial for trial in trials if not is_repeat(trial)]


def best_trial(trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """The finished trial of the search with the highest score, the first of equal ones; None if none has finished.

    Repeats do not count: the best is chosen among settings that were trained with one seed each.
    """
    finished = [trial for trial in search_trials(trials) if trial.state == TrialState.COMPLETE]
    return min(finished, key=lambda trial: (-(trial.value or 0.0), trial.number), default=None)
