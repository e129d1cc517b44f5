"""The progress of a run, read from the records that it writes."""

from dataclasses import dataclass
from typing import Any

from fsr.records import is_evaluation
from fsr.run import Run
from fsr.score_names import is_score


@dataclass(frozen=True)
class Progress:
    """What a run's metrics say last."""

    step: int = 0
    evaluated: int = 0
    """Step of the last evaluation."""
    scores: dict[str, Any] | None = None
    """The validation scores of that evaluation."""
    steps_per_s: float | None = None

    @classmethod
    def of(cls, run: Run) -> "Progress":
        """The progress of a run; all zero before its first record."""
        records = run.metrics()
        evaluations = [record for record in records if is_evaluation(record)]
        last = evaluations[-1] if evaluations else {}
        rates = [record["perf/steps_per_s"] for record in records if "perf/steps_per_s" in record]
        return cls(
            step=max((record["step"] for record in records), default=0),
            evaluated=last.get("step", 0),
            scores={name: value for name, value in last.items() if is_score(name)},
            steps_per_s=rates[-1] if rates else None,
        )
