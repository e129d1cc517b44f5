"""The trials of a study as rows: read from Optuna's storage and the run folders alone, and drawn as a table."""

from collections.abc import Callable
from dataclasses import dataclass, field

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.table import Table
from rich.text import Text

from fsr.json_file import UNREADABLE, DamagedError
from fsr.score_names import CAM_MIOU, SEG_MIOU, score_text
from fsr.setting_text import settings_text
from launch.state.attempts import Attempt
from launch.state.damage import in_words
from launch.state.paths import StudyFolder
from launch.state.progress import Progress
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
        rows = []
        for trial in self._study.get_trials(deepcopy=False):
            row = self._finished.get(trial.number) or self._row(trial)
            if trial.state.is_finished():
                self._finished[trial.number] = row
            rows.append(row)
        return rows

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
        parameters = settings_text(trial.params)
        if parameters and is_repeat(trial):  # one that nobody has claimed yet has no parameters
            parameters += f"  seed {trial.user_attrs[SEED]}"
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
        )


def table(rows: list[Row], iterations: int, best: FrozenTrial | None = None) -> Table:
    """The rows as a table; the best trial is set off."""
    drawn = Table("trial", "parameters", "state", "step", "seg mIoU", "cam mIoU", "steps/s", "time", "left", "ended by")
    for row in rows:
        rate = row.progress.steps_per_s
        drawn.add_row(
            str(row.number),
            row.parameters,
            Text(row.state, STYLES.get(row.state, "dim")),
            f"{row.progress.step}/{iterations}",
            score(row, SEG_MIOU),
            score(row, CAM_MIOU),
            f"{rate:.2f}" if rate else "",
            duration(row.seconds),
            duration(left(row, iterations)),
            counted(row.causes),
            style="bold" if best is not None and row.number == best.number else "",
        )
    return drawn


def damaged(rows: list[Row]) -> list[str]:
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
