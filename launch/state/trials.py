"""The trials of a study: which are of the search and which are repeats, which is the best, how many are done."""

from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState

# User attributes of a repeat; a trial of the search has the base's seed and none of them.
SEED = "seed"
REPEATS = "repeats"  # number of the trial whose setting it has
CODE = "code"  # user attribute of every trial: the code versions that trained it, in their order
DONE = (TrialState.COMPLETE, TrialState.PRUNED)  # what counts towards the target


def is_repeat(trial: FrozenTrial) -> bool:
    """Whether a trial is a setting of the search again, with another seed."""
    return SEED in trial.user_attrs


def search_trials(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials of the search, in their order: all but the repeats."""
    return [trial for trial in trials if not is_repeat(trial)]


def repeats_among(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The repeats, without those that failed."""
    return [trial for trial in trials if is_repeat(trial) and trial.state != TrialState.FAIL]


def best_first(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The finished trials of the search by their value, of equal ones the lowest number first.

    Repeats do not count. The best of one seed is chosen within the search, where every setting had the same seed and
    one chance. A repeat has another seed, and with it an easier or a harder run: the luckiest seed of a setting would
    win, not the best setting. Whether the choice was right is what the mean over the repeats then says.
    """
    finished = [trial for trial in search_trials(trials) if trial.state == TrialState.COMPLETE]
    return sorted(finished, key=lambda trial: (-_value(trial), trial.number))


def best_trial(trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """The first of `best_first`; None if none has finished."""
    return next(iter(best_first(trials)), None)


def count(trials: Sequence[FrozenTrial], *states: TrialState) -> int:
    """How many trials are in one of these states."""
    return sum(trial.state in states for trial in trials)


def _value(trial: FrozenTrial) -> float:
    """The value of a finished trial, which Optuna's types allow to be missing."""
    assert trial.value is not None, f"trial {trial.number} has finished without a value"
    return trial.value
