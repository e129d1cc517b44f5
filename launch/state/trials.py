"""The trials of a study: which are of the search and which are repeats, which is the best, how many are done."""

from collections.abc import Sequence
from typing import Any, TypedDict, cast

from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState
from typeguard import TypeCheckError

from fsr.json_file import typed
from fsr.records import check_values
from launch.state.attempts import Cause
from launch.state.trial_records import settings_key

# User attributes of a repeat; a trial of the search has the base's seed and none of them.
SEED = "seed"
REPEATS = "repeats"  # number of the trial whose setting it has
CODE = "code"  # user attribute of every trial: the code versions that trained it, in their order
SUMMARY = "summary"  # user attribute of a trial that has ended: what it took
ERROR = "error"  # user attribute of a trial that was given up: why
ATTRIBUTES: dict[str, Any] = {SEED: int, REPEATS: int, CODE: list[str], ERROR: str}
DONE = (TrialState.COMPLETE, TrialState.PRUNED)  # what counts towards the target


class Summary(TypedDict, total=False):
    """What a trial took, told when it had ended, so that nobody need open the folders of finished trials."""

    causes: list[Cause | None]
    node: str
    seconds: float
    gpu_seconds: dict[str, float]
    bytes: int
    step: int
    evaluated: int
    scores: dict[str, Any] | None
    steps_per_s: float | None


def summary_of(trial: FrozenTrial) -> Summary:
    """The summary of a trial that is not damaged; empty before its end."""
    return cast(Summary, trial.user_attrs.get(SUMMARY, {}))


def damage_of(trial: FrozenTrial) -> str | None:
    """What is wrong with what the storage says of a trial, as far as it can be told from that; None if nothing is."""
    told = trial.user_attrs
    if trial.state == TrialState.COMPLETE and not (trial.value is not None and 0 <= trial.value <= 1):
        return f"its value is {trial.value}, not a score from 0 to 1"
    for name, value in trial.params.items():
        space = trial.distributions[name]
        inside = (
            value in space.choices
            if isinstance(space, CategoricalDistribution)
            else not isinstance(space, FloatDistribution | IntDistribution) or space.low <= value <= space.high
        )
        if not inside:
            return f"its {name} is {value!r:.60}, which lies outside of the range"
    if SUMMARY in told:
        try:
            summary = typed(told[SUMMARY], Summary)
        except (TypeCheckError, ValueError) as error:
            return f"its summary is damaged: {error}"
        wrong = check_values(
            {name: value for name, value in (summary.get("scores") or {}).items() if value is not None}
        )
        if wrong:
            return f"its summary is damaged: {wrong}"
    for name in ATTRIBUTES.keys() & told.keys():
        try:
            typed(told[name], ATTRIBUTES[name])
        except TypeCheckError as error:
            return f"its {name} is damaged: {error}"
    if is_repeat(trial) and not 0 <= told.get(REPEATS, -1) < trial.number:
        return f"it repeats trial {told.get(REPEATS)!r:.60}"
    return None


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
    finished = [trial for trial in finished if damage_of(trial) is None]
    return sorted(finished, key=lambda trial: (-_value(trial), trial.number))


def best_settings(trials: Sequence[FrozenTrial], best: int) -> list[FrozenTrial]:
    """Trials of the search that have trial 0's setting and so many best others, best first: each setting once."""
    chosen = {settings_key(trial.params): trial for trial in search_trials(trials)[:1]}
    for trial in best_first(trials):
        if len(chosen) <= best:
            chosen.setdefault(settings_key(trial.params), trial)
    return [*chosen.values()]


def _value(trial: FrozenTrial) -> float:
    """The value of a finished trial, which Optuna's types allow to be missing."""
    assert trial.value is not None, f"trial {trial.number} has finished without a value"
    return trial.value
