"""What a campaign came to."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from launch.state.attempts import COSTS, Attempt, cost_shares


@dataclass(frozen=True, kw_only=True)
class Measures:
    """Times in hours, and GPU-hours."""

    reached: bool
    """Whether as many trials as wanted were finished or pruned."""
    reason: str
    """Why the campaign ended."""
    makespan_h: float
    """From the first submission to the end of the last trial."""
    occupied: float
    """GPU-hours that jobs had."""
    useful: float
    """GPU-hours of steps that nobody did again."""
    repeated: float
    """GPU-hours of steps that were done again."""
    lost: float
    """GPU-hours of trials that failed."""
    idle: float
    """GPU-hours of jobs in which no attempt was at work: starting, leaving, being dead on a node."""
    waiting: float
    """GPU-hours that jobs waited in the queue."""
    finished: int
    pruned: int
    failed: int
    best: float | None
    """The best score found."""
    attempts: int
    ends: dict[str, int]
    """Attempts by cause."""
    claims: int
    sweeps: int
    """How often the user called for workers."""
    events: int
    """Of the simulation."""
    cpu_s: float
    """Processor seconds that the simulation took."""

    @property
    def goodput(self) -> float:
        """The share of what jobs had that was useful."""
        return self.useful / self.occupied if self.occupied else 0.0

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return {"goodput": self.goodput, **asdict(self)}


def measure(
    trials: list[FrozenTrial], attempts: dict[int, list[Attempt]], occupied_s: float, waited_s: float, **others: Any
) -> Measures:
    """The measures of a campaign with these trials, and the attempts on each. The rest is told as it is."""
    states = Counter(trial.state for trial in trials)
    failed = {trial.number for trial in trials if trial.state == TrialState.FAIL}
    shares = Counter[str]()
    for number, each in attempts.items():
        for _, parts in cost_shares(each, number in failed):
            shares.update(parts)
    hours = {name: shares[name] / 3600 for name in COSTS}
    values = [trial.value for trial in trials if trial.state == TrialState.COMPLETE and trial.value is not None]
    return Measures(
        occupied=occupied_s / 3600,
        idle=occupied_s / 3600 - sum(hours.values()),
        waiting=waited_s / 3600,
        finished=states[TrialState.COMPLETE],
        pruned=states[TrialState.PRUNED],
        failed=states[TrialState.FAIL],
        best=max(values, default=None),
        attempts=sum(map(len, attempts.values())),
        ends=dict(Counter(str(one.cause) for each in attempts.values() for one in each).most_common()),
        **hours,
        **others,
    )
