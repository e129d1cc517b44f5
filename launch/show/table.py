"""The trials of a study as rows: read from Optuna's storage and the run folders alone."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from fsr.json_file import UNREADABLE, DamagedError
from fsr.score_names import score_text
from fsr.setting_text import settings_text
from launch.state.attempts import Attempt
from launch.state.damage import in_words
from launch.state.paths import StudyFolder, relative
from launch.state.progress import Progress
from launch.state.study_storage import one_by_one
from launch.state.trial_identity import Strangers
from launch.state.trials import CODE, ERROR, SEED, damage_of, is_repeat, summary_of

DAMAGED = "damaged"
STYLES = {
    "complete": "green",
    "pruned": "yellow",
    "fail": "red",
    "running": "cyan",
    "waiting": "magenta",
    DAMAGED: "bold red",
}


@dataclass(frozen=True)
class Row:
    """One trial as it stands."""

    number: int
    state: str
    """Optuna's word in lower case; `waiting` is also a running trial that no worker holds, `damaged` one whose records
    cannot be read: `error` says which, and why."""
    parameters: str
    progress: Progress
    causes: tuple[str, ...] = ()
    """How its attempts ended."""
    node: str = ""
    seconds: float | None = None
    """Time worked on it, all attempts together."""
    gpu_seconds: dict[str, float] = field(default_factory=dict)
    error: str | None = None
    value: float | None = None
    code: tuple[str, ...] = ()
    """The code versions that trained it."""
    bytes: int = 0
    """What its run has on the disk."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What `parameters` tells: the parameters, and the seed of a repeat."""
    repeat: bool = False
    """Whether it has a setting of the search again, with another seed."""


class Rows:
    """Reads the rows of a study again and again; what is finished is read once, and from the storage alone."""

    def __init__(self, study: optuna.Study, folder: StudyFolder, held: Callable[[Attempt], bool]) -> None:
        """`held` tells whether an attempt that has not ended still works."""
        self._study = study
        self._folder = folder
        self._held = held
        self._finished: dict[int, Row] = {}
        self._strangers = Strangers(folder)

    def read(self) -> list[Row]:
        """All rows by number."""
        rows = {}
        for trial in one_by_one(self._study, unless=self._finished):
            row = rows[trial.number] = self._row(trial)
            if trial.state.is_finished():
                self._finished[trial.number] = row
        rows |= self._finished
        return [rows[number] for number in sorted(rows)]

    def _row(self, trial: FrozenTrial) -> Row:
        damage = damage_of(trial)
        try:
            if damage is None:
                return self._sound_row(trial)
        except UNREADABLE as error:
            damage = in_words(error, self._folder.run(trial.number).folder)
        return Row(trial.number, DAMAGED, "", Progress(), error=damage)

    def _sound_row(self, trial: FrozenTrial) -> Row:
        state = trial.state.name.lower()
        settings = dict(trial.params)
        if settings and is_repeat(trial):  # one that nobody has claimed yet has no parameters
            settings |= {SEED: trial.user_attrs[SEED]}
        parameters = settings_text(settings)
        if trial.state.is_finished():
            summary = summary_of(trial)
            return Row(
                number=trial.number,
                state=state,
                parameters=parameters,
                progress=Progress(
                    step=summary.get("step", 0),
                    evaluated=summary.get("evaluated", 0),
                    scores=summary.get("scores"),
                    steps_per_s=summary.get("steps_per_s"),
                ),
                causes=tuple(cause or "unknown" for cause in summary.get("causes", ())),
                node=summary.get("node", ""),
                seconds=summary.get("seconds"),
                gpu_seconds=summary.get("gpu_seconds", {}),
                error=trial.user_attrs.get(ERROR),
                value=trial.value,
                code=tuple(trial.user_attrs.get(CODE, ())),
                bytes=summary.get("bytes", 0),
                settings=settings,
                repeat=is_repeat(trial),
            )
        run, attempt_log = self._folder.run(trial.number), self._folder.attempt_log(trial.number)
        stranger = self._strangers.stranger_in(run, trial) if trial.state == TrialState.RUNNING else None
        if stranger:
            raise DamagedError(stranger)
        attempts = attempt_log.attempts()
        run.result()
        works = bool(attempts) and attempts[-1].cause is None and self._held(attempts[-1])
        return Row(
            number=trial.number,
            state=state if works or not attempts else "waiting",
            parameters=parameters,
            progress=Progress.of(run),
            causes=tuple(attempt.cause or "unknown" for attempt in (attempts[:-1] if works else attempts)),
            node=attempts[-1].node if works else "",
            seconds=sum(attempt.seconds for attempt in attempts) if attempts else None,
            gpu_seconds=attempt_log.gpu_seconds(),
            code=tuple(trial.user_attrs.get(CODE, ())),
            bytes=run.bytes(),
            settings=settings,
            repeat=is_repeat(trial),
        )

    def log_of(self, row: Row) -> str:
        """Where a trial's own error is told, or else the log of the job that worked on it last; empty if neither is."""
        file = self._folder.run(row.number).folder / "error.txt"
        if not file.exists():
            with suppress(*UNREADABLE):  # the row tells of it
                attempts = self._folder.attempt_log(row.number).attempts()
                file = self._folder.job_log(attempts[-1].job) if attempts else file
        return relative(file) if file.exists() else ""


def best_of(rows: Sequence[Row]) -> int | None:
    """Number of the best trial of the search; of equal ones the first. None if none has finished."""
    finished = [row for row in rows if row.state == "complete" and row.value is not None and not row.repeat]
    best = min(finished, key=lambda row: (-(row.value or 0.0), row.number), default=None)
    return None if best is None else best.number


def damaged(rows: Sequence[Row]) -> list[str]:
    """A line for each damaged trial: what of it cannot be read, and why."""
    return [f"trial {row.number} is damaged: {row.error}" for row in rows if row.state == DAMAGED]


def left(row: Row, iterations: int) -> float | None:
    """Seconds that a running trial still takes at its present rate."""
    rate = row.progress.steps_per_s
    return (iterations - row.progress.step) / rate if row.state == "running" and rate else None


def counted(causes: tuple[str, ...]) -> str:
    """Causes as text, in the order of their first coming: preempted ×2, finished."""
    times = {cause: causes.count(cause) for cause in causes}
    return ", ".join(f"{cause} ×{number}" if number > 1 else cause for cause, number in times.items())


def score(row: Row, name: str) -> str:
    """A score of the last evaluation as text."""
    scores = row.progress.scores or {}
    return score_text(scores[name]) if name in scores else ""


def duration(seconds: float | None) -> str:
    """Seconds as text: 42 s, 3 min 05 s, 5 h 12 min."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
