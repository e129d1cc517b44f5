"""The trials of a study as rows: read from Optuna's storage and the run folders alone, and drawn as a table."""

from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.table import Table

from launch.folder import StudyFolder

STYLES = {"complete": "green", "pruned": "yellow", "fail": "red", "running": "cyan", "interrupted": "magenta"}


@dataclass(frozen=True)
class Row:
    """One trial as it stands."""

    number: int
    state: str
    """Optuna's word in lower case; `interrupted` is a running trial that no worker holds."""
    parameters: str
    step: int
    scores: dict[str, Any]
    """The last evaluation."""
    evaluated: int
    """Its step."""
    steps_per_s: float | None
    seconds: float | None
    """Time worked on it, all attempts together."""
    error: str | None


class Rows:
    """Reads the rows of a study again and again; what is finished is read once."""

    def __init__(self, study: optuna.Study, folder: StudyFolder) -> None:
        self._study = study
        self._folder = folder
        self._finished: dict[int, Row] = {}

    def read(self, running: str = "running") -> list[Row]:
        """All rows by number; trials that Optuna calls running are called `running`."""
        rows = []
        for trial in self._study.get_trials(deepcopy=False):
            row = self._finished.get(trial.number) or self._row(trial, running)
            if trial.state.is_finished():
                self._finished[trial.number] = row
            rows.append(row)
        return rows

    def _row(self, trial: FrozenTrial, running: str) -> Row:
        records = self._folder.run(trial.number).metrics()
        evaluations = [record for record in records if any(name.startswith("val/") for name in record)]
        rates = [record["perf/steps_per_s"] for record in records if "perf/steps_per_s" in record]
        return Row(
            number=trial.number,
            state=running if trial.state == TrialState.RUNNING else trial.state.name.lower(),
            parameters="  ".join(f"{name} {value:.4g}" for name, value in trial.params.items()),
            step=max((record["step"] for record in records), default=0),
            scores=evaluations[-1] if evaluations else {},
            evaluated=evaluations[-1]["step"] if evaluations else 0,
            steps_per_s=rates[-1] if rates else None,
            seconds=trial.user_attrs.get("seconds"),
            error=trial.user_attrs.get("error"),
        )


def table(rows: list[Row], iterations: int, best: int | None = None) -> Table:
    """The rows as a table; the best trial is set off."""
    drawn = Table("trial", "parameters", "state", "step", "seg mIoU", "cam mIoU", "steps/s", "time", "left")
    for row in rows:
        left = None
        if row.state == "running" and row.steps_per_s:
            left = (iterations - row.step) / row.steps_per_s
        drawn.add_row(
            str(row.number),
            row.parameters,
            f"[{STYLES.get(row.state, 'dim')}]{row.state}[/]",
            f"{row.step}/{iterations}",
            score(row, "val/seg_miou"),
            score(row, "val/cam_miou"),
            f"{row.steps_per_s:.2f}" if row.steps_per_s else "",
            duration(row.seconds),
            duration(left),
            style="bold" if row.number == best else "",
        )
    return drawn


def score(row: Row, name: str) -> str:
    """A score of the last evaluation as text."""
    return f"{row.scores[name]:.3f}" if name in row.scores else ""


def duration(seconds: float | None) -> str:
    """Seconds as text: 42 s, 3 min 05 s, 5 h 12 min."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
