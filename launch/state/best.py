"""Which trial of a study is the best: one rule for all that name one."""

from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState

from launch.state.repeats import is_repeat


def search_trials(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials of the search, in their order: all but the repeats."""
    return [trial for trial in trials if not is_repeat(trial)]


def best_trial(trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """The finished trial of the search with the highest value, of equal ones the lowest number; None if none finished.

    Repeats do not count. The best of one seed is chosen within the search, where every setting had the same seed and
    one chance. A repeat has another seed, and with it an easier or a harder run: the luckiest seed of a setting would
    win, not the best setting. Whether the choice was right is what the mean over the repeats then says.
    """
    finished = [trial for trial in search_trials(trials) if trial.state == TrialState.COMPLETE]
    return min(finished, key=lambda trial: (-_value(trial), trial.number), default=None)


def _value(trial: FrozenTrial) -> float:
    """The value of a finished trial, which Optuna's types allow to be missing."""
    assert trial.value is not None, f"trial {trial.number} has finished without a value"
    return trial.value
