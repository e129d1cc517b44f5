"""The tables of finished runs: which columns each has, and how they are read from a study's folder and storage.

What is damaged is marked, the rest is read.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import chain, repeat
from numbers import Real
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState
from typing_extensions import NotRequired, TypedDict

from fsr.json_file import UNREADABLE, DamagedError, read_json
from fsr.records import is_evaluation, read_records
from fsr.run import Run
from fsr.score_names import is_score
from fsr.setting_text import setting_text, stored
from launch.state.attempts import COSTS, Attempt, AttemptLog, cost_shares
from launch.state.damage import in_words
from launch.state.paths import Definition, StudyFolder
from launch.state.trial_identity import Strangers
from launch.state.trials import CODE, ERROR, REPEATS, SEED, damage_of, summary_of

ERRORS = ("precision", "recall", "false_positive", "false_negative")
NONE = setting_text(None)  # a choice, where an empty cell says that a trial does not have the parameter
UNKNOWN = "unknown"  # how an attempt ended that did not say so, or has not ended
NO_COST = {f"{name}_h": 0.0 for name in COSTS}  # of an attempt that has not ended
COLUMNS = {
    "trials": (
        *("trial", "state", "value", "setting", "seed", "step", "iterations", "steps_per_s", "attempts", "causes"),
        *("started", "ended", "seconds", *NO_COST, "code", "error", "damage"),
    ),
    "curves": ("trial", "step"),
    "cam_quality": ("trial", "network", "cam", "threshold", "miou", "run_threshold"),
    "class_iou": ("trial", "network", "kind", "class", "iou", *ERRORS),
    "attempts": ("trial", "attempt", *(field.name for field in fields(Attempt)), "seconds", *NO_COST),
    "space": ("parameter", "kind", "low", "high", "log", "choices"),
}
CATEGORIES = ("study", "state", "network", "cam", "kind", "class", "cause")  # columns of few different values


@dataclass(frozen=True)
class Tables:
    """Runs as tidy tables: one observation a row, whose `study` and `trial` say where it belongs.

    Scores are fractions, times Unix seconds, costs GPU-hours (hours of ranks where there is no GPU).
    """

    trials: pd.DataFrame
    """A trial a row: `state` (complete, pruned, fail, waiting, or running, which may also be interrupted; damaged
    if the storage tells what cannot be), `value` of the study's metric, `setting`
    (the trial of the search that has these parameters: its own number, but for a repeat)
    and `seed`, each parameter as `param/NAME` (see `parameter_column`), scores of the last evaluation as `val/NAME`,
    `step` of `iterations`, `steps_per_s`, number of `attempts` and their `causes`, `started`, `ended`, `seconds`,
    `useful_h`, `repeated_h`, `lost_h`, the versions of the `code` that trained it, `error`, and `damage`: what of its
    files could not be read."""
    curves: pd.DataFrame
    """A trial and `step` a row: what the run recorded there, as `train/NAME`, `val/NAME` and `perf/NAME`."""
    cam_quality: pd.DataFrame
    """`miou` of the last evaluation's CAMs by `network` (student, teacher), `cam` (cam, aux_cam) and `threshold`; the
    run itself uses `run_threshold`."""
    class_iou: pd.DataFrame
    """`iou` by `network`, `kind` (segmentation, cam, aux_cam) and `class` at the last evaluation; of CAMs, at their
    threshold, also `precision`, `recall`, and `false_positive` and `false_negative` as shares of the union."""
    attempts: pd.DataFrame
    """An attempt a row, as in the run's attempt log, and what it cost: `useful_h`, `repeated_h`, `lost_h`."""
    space: pd.DataFrame
    """A searched `parameter` a row: its `kind` (float, int, categorical), its range from `low` to `high` and whether
    that is searched on a `log` scale, or its `choices` as text."""

    def finished(self, study: str) -> pd.DataFrame:
        """The trials of a study that were trained to their end."""
        finished: pd.DataFrame = self.trials[(self.trials["study"] == study) & (self.trials["state"] == "complete")]
        return finished

    def search(self, study: str) -> pd.DataFrame:
        """Those of its search, without repeats: what statistics of parameters may be taken of."""
        finished = self.finished(study)
        # A repeat has the number of the trial whose setting it repeats as its `setting`, a trial of the search its own.
        search: pd.DataFrame = finished[finished["setting"] == finished["trial"]]
        return search

    def distribution(self, study: str, parameter: str) -> dict[str, Any]:
        """How a parameter was searched: its row of `space`."""
        rows = self.space[(self.space["study"] == study) & (self.space["parameter"] == parameter)]
        found: dict[str, Any] = rows.iloc[0].to_dict()
        return found


class Quality(TypedDict):
    """What quality.json says of the last evaluation: by network and kind of label map, its quality."""

    step: int
    class_names: list[str]
    networks: dict[str, dict[str, "KindQuality"]]


class KindQuality(TypedDict):
    """Fractions, of each class in the order of the names; None where undefined."""

    miou: float | None
    iou: list[float | None]
    pixel_accuracy: NotRequired[float | None]
    precision: NotRequired[list[float | None]]
    recall: NotRequired[list[float | None]]
    false_positive: NotRequired[list[float | None]]
    false_negative: NotRequired[list[float | None]]
    foreground_precision: NotRequired[float | None]
    foreground_recall: NotRequired[float | None]
    threshold: NotRequired[float]
    best_miou: NotRequired[float]
    best_threshold: NotRequired[float]
    curve: NotRequired[list[tuple[float, float]]]
    """Threshold and mIoU."""


def read_tables(folder: StudyFolder, study: optuna.Study, definition: Definition) -> dict[str, pd.DataFrame]:
    """The tables by name."""
    base, metric = definition["base"], definition["metric"]
    tables = {name: Columns(columns) for name, columns in COLUMNS.items()}
    strangers = Strangers(folder)
    trials = study.get_trials(deepcopy=False)
    for name, distribution in space_of(trials).items():
        tables["space"].add(parameter=name, **space_row(distribution))
    for trial in trials:
        run = folder.run(trial.number)
        files = RunFiles(run, strangers.stranger_in(run, trial))
        files.compare(trial, metric)
        shares = cost_shares(files.attempts, failed=trial.state == TrialState.FAIL)
        costs = dict.fromkeys(files.attempts, NO_COST) | {attempt: hours(share) for attempt, share in shares}
        tables["trials"].add(trial=trial.number, **trial_row(trial, files, costs, base, metric))
        for number, attempt in enumerate(files.attempts):
            row = vars(attempt) | costs[attempt] | {"seconds": attempt.seconds if attempt.ended else None}
            tables["attempts"].add(trial=trial.number, attempt=number, **row)
        steps = files.steps
        names = dict.fromkeys(chain.from_iterable(steps.values()))
        values = {name: list(map(dict.get, steps.values(), repeat(name))) for name in names}
        tables["curves"].add(len(steps), trial=trial.number, step=list(steps), **values)
        for name, rows, values in files.quality:
            tables[name].add(rows, trial=trial.number, **values)
    return {name: table.frame(folder.name) for name, table in tables.items()}


class RunFiles:
    """What the records of one run folder hold; what cannot be read is left out and named in `damage`."""

    def __init__(self, run: Run, stranger: str | None = None) -> None:
        """`stranger` says that the folder belongs to another trial: nothing of it is read."""
        self.damage: list[str] = []
        self.steps: dict[int, dict[str, float]] = {}  # values by step
        self.run = run
        self.scores: dict[str, float] = {}  # of the last evaluation
        self.quality: list[tuple[str, int, dict[str, Any]]] = []  # table, number of rows, columns
        self.attempts: list[Attempt] = []
        self.result: dict[str, Any] | None = None
        self.config: dict[str, Any] = {}
        if stranger:
            self.damage.append(stranger)
            return
        records: list[dict[str, Any]] = []
        with self._naming_damage():
            records, problems = read_records(run.metrics_file)
            self.damage += [problem.replace(" is damaged: ", ": ", 1) for problem in problems]
        self.scores = dict(next(filter(is_evaluation, reversed(records)), {}))
        self.scores.pop("step", None)
        for record in records:
            values = self.steps.setdefault(record.pop("step"), record)
            if values is not record:
                values.update(record)
        with self._naming_damage():
            self.quality = list(quality_rows(run.quality_file))
        with self._naming_damage():
            self.attempts = AttemptLog(run).attempts()
        with self._naming_damage():
            self.result = run.result()
        with self._naming_damage():
            self.config = read_json(run.config_file, dict[str, Any])

    @contextmanager
    def _naming_damage(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            pass
        except UNREADABLE as error:
            self.damage.append(in_words(error, self.run.folder))

    def compare(self, trial: FrozenTrial, metric: str) -> None:
        """Name what the records say in another way than the study: files of another trial."""
        if trial.state == TrialState.COMPLETE:
            for name, scores in (("metrics.jsonl", self.scores), ("result.json", self.result or {})):
                score = scores.get(metric, trial.value)
                if score != trial.value:
                    self.damage.append(f"{name}: its {metric} is {score}, but the study was told {trial.value}")
                    self.scores = {}
        for name, value in trial.params.items():
            if stored(self.config.get(name, value)) != value:
                self.damage.append(f"config.json: its {name} is {self.config[name]}, but the trial's {value}")

    def last(self, name: str) -> float | None:
        """The last value of that name, if there is one."""
        return next((values[name] for values in reversed(self.steps.values()) if name in values), None)


def trial_row(
    trial: FrozenTrial, files: RunFiles, costs: dict[Attempt, dict[str, float]], base: dict[str, Any], metric: str
) -> dict[str, Any]:
    """One row of `trials`, without the number."""
    damage = damage_of(trial)
    if damage:  # no word of it can be trusted
        return {"state": "damaged", "iterations": base["iterations"], "damage": "; ".join([damage, *files.damage])}
    summary = summary_of(trial)  # of a trial that has ended; its folder may be gone
    attempts = files.attempts
    scores = {name: value for name, value in files.scores.items() if is_score(name)}
    if trial.state == TrialState.COMPLETE and (files.damage or not scores):
        scores = summary.get("scores") or {metric: trial.value}
    return {
        "state": trial.state.name.lower(),
        "value": trial.value if trial.state == TrialState.COMPLETE else None,
        "setting": trial.user_attrs.get(REPEATS, trial.number),
        "seed": trial.user_attrs.get(SEED, base["seed"]),
        "step": max(files.steps, default=summary.get("step", 0)),
        "iterations": base["iterations"],
        "steps_per_s": files.last("perf/steps_per_s") or summary.get("steps_per_s"),
        "attempts": len(attempts),
        "causes": ", ".join(attempt.cause or UNKNOWN for attempt in attempts),
        "started": attempts[0].started if attempts else None,
        "ended": attempts[-1].ended if attempts else None,
        "seconds": sum(attempt.seconds for attempt in attempts if attempt.ended),
        **{name: sum(cost[name] for cost in costs.values()) for name in NO_COST},
        "code": ", ".join(trial.user_attrs.get(CODE, ())),
        "error": trial.user_attrs.get(ERROR),
        "damage": "; ".join(files.damage) or None,
        **{f"param/{name}": NONE if value is None else value for name, value in trial.params.items()},
        **(scores or summary.get("scores") or {}),
    }


def space_of(trials: Sequence[FrozenTrial]) -> dict[str, BaseDistribution]:
    """The distribution of each parameter that a trial has; of one that changed, its last. Damaged trials tell none."""
    sound = (trial for trial in trials if damage_of(trial) is None)
    return {name: distribution for trial in sound for name, distribution in trial.distributions.items()}


def space_row(distribution: BaseDistribution) -> dict[str, Any]:
    """What `space` says of a distribution."""
    if isinstance(distribution, CategoricalDistribution):
        return {"kind": "categorical", "choices": ", ".join(map(setting_text, distribution.choices))}
    assert isinstance(distribution, FloatDistribution | IntDistribution)  # Optuna has no other
    kind = "int" if isinstance(distribution, IntDistribution) else "float"
    return {"kind": kind, "low": distribution.low, "high": distribution.high, "log": distribution.log}


def parameter_column(column: list[Any]) -> list[Any]:
    """A parameter's values as one kind, None for trials that do not have it: numbers, or booleans, or else texts.

    A chosen None is the text None.
    """
    there = (value for value in column if value is not None)
    kinds = {bool if isinstance(value, bool) else Real if isinstance(value, Real) else str for value in there}
    if len(kinds) < 2 and str not in kinds:
        return column
    return [None if value is None else setting_text(value) for value in column]


def hours(rank_seconds: dict[str, float]) -> dict[str, float]:
    """The `cost_shares` of an attempt as columns."""
    return {f"{name}_h": seconds / 3600 for name, seconds in rank_seconds.items()}


def quality_rows(file: Path) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """What quality.json adds to `class_iou` and `cam_quality`: the table, how many rows, and their columns.

    Raises FileNotFoundError, OSError, DamagedError.
    """
    content = read_json(file, Quality)
    classes = content["class_names"]
    for network, kinds in content["networks"].items():
        for kind, quality in kinds.items():
            by_class: dict[str, Any] = {name: values for name, values in quality.items() if name in ("iou", *ERRORS)}
            if any(len(values) != len(classes) for values in by_class.values()):
                raise DamagedError(f"{file} is damaged: {kind} of {network} has not {len(classes)} classes")
            thresholds, mious = (
                map(list, zip(*quality.get("curve", ()), strict=True)) if quality.get("curve") else ([], [])
            )
            fractions = [*filter(None, chain(*by_class.values(), mious))]  # None where undefined; 0 is one
            if fractions and not 0 <= min(fractions) <= max(fractions) <= 1:
                wrong = next(value for value in fractions if not 0 <= value <= 1)
                raise DamagedError(f"{file} is damaged: {kind} of {network} has a fraction of {wrong}")
            yield "class_iou", len(classes), {"network": network, "kind": kind, "class": classes, **by_class}
            if thresholds:
                curve = {"threshold": thresholds, "miou": mious, "run_threshold": quality.get("threshold")}
                yield "cam_quality", len(thresholds), {"network": network, "cam": kind, **curve}


class Columns:
    """A table that grows by rows and is stored by columns. Rows may lack columns, or bring new ones."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._columns: dict[str, list[Any]] = {name: [] for name in names}
        self._rows = 0

    def add(self, rows: int = 1, **values: Any) -> None:
        """Append rows; a value is a list with one for each row, or the same for all."""
        for name, value in values.items():
            column = self._columns.get(name)
            if column is None:
                column = self._columns[name] = []
            if len(column) < self._rows:
                column += [None] * (self._rows - len(column))
            column += value if isinstance(value, list) else [value] * rows
        self._rows += rows

    def frame(self, study: str) -> pd.DataFrame:
        """The table, with the study's name in front."""
        for name, column in self._columns.items():
            column.extend([None] * (self._rows - len(column)))
            if name.startswith("param/"):
                self._columns[name] = parameter_column(column)
        return with_categories(pd.DataFrame({"study": [study] * self._rows, **self._columns}))


def with_categories(table: pd.DataFrame) -> pd.DataFrame:
    """A table whose columns of few different values are stored as categories."""
    stored: pd.DataFrame = table.astype({name: "category" for name in CATEGORIES if name in table})
    return stored
