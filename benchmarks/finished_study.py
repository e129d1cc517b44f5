"""A study as thousands of ended trials leave it: study.json, the records of its storage, run folders of the first ones.

The trials of loss_weights: five parameters, ten evaluations, scores that depend on the parameters; one in ten is
pruned, one in thirty failed. Sixteen workers train them side by side, so their records are mixed as those of a sweep
are. The records are written as text (rows of a database in bulk), not through Optuna, which takes minutes for as many.
"""

import json
import math
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import FloatDistribution, distribution_to_json
from optuna.trial import TrialState

from fsr.config import TrainConfig
from launch.plan import define, plan
from launch.state.journal import (
    CREATE_TRIAL,
    INTERMEDIATE_VALUE,
    JOURNAL,
    PARAM,
    STATE_VALUES,
    SYSTEM_ATTR,
    USER_ATTR,
)
from launch.state.paths import StudyFolder
from launch.state.retention import Retention
from launch.state.storage import open_storage
from launch.state.target import Target
from launch.state.trials import CODE, ERROR, SUMMARY
from launch.study import Study, load
from launch.sweep_options import Options
from sweeps.loss_weights import own

NAME = "loss_weights"
EVALUATIONS = 10
PARALLEL = 16
STARTUP = 16  # trials that the sampler draws independently, which leave no parameters of their own in the records
TRIAL_S = 100
BEGAN = datetime(2026, 11, 1, tzinfo=timezone.utc)
SCORES = (
    *("seg_miou", "seg_pixel_accuracy", "cam_miou", "cam_best_miou", "cam_best_threshold"),
    *("aux_cam_miou", "aux_cam_best_miou", "aux_cam_best_threshold", "class_f1"),
)
RELATIVE = "tpe:relative_params:0"  # where the sampler leaves what it has drawn for all parameters together
AT_ONCE = 1_000  # trials whose rows are sent to a database together
Record = dict[str, Any]


@dataclass(frozen=True)
class FinishedStudy:
    """What works on the study need."""

    study: Study
    base: TrainConfig
    folder: StudyFolder
    code: str
    """The code version that trained it."""
    database: bool
    """Whether FSR_STORAGE names its storage."""

    @classmethod
    def of(cls, folder: StudyFolder, database: bool) -> "FinishedStudy":
        """A study that was written before."""
        base = TrainConfig.from_json(folder.definition()["base"])
        return cls(load(NAME), base, folder, folder.code.versions()[-1], database)


@dataclass(frozen=True)
class Ended:
    """A trial that has ended."""

    number: int
    state: TrialState
    params: dict[str, float]
    values: dict[int, float]
    """The score at each step where it was evaluated."""
    scores: dict[str, float]
    """All scores of the last evaluation."""
    started: datetime

    @property
    def ended(self) -> datetime:
        """When its score was told."""
        return self.started + timedelta(seconds=TRIAL_S * max(1, len(self.values)) / EVALUATIONS)

    @property
    def value(self) -> float | None:
        """What was told; of a pruned trial Optuna takes the last score."""
        return None if self.state == TrialState.FAIL else self.values[max(self.values)]

    @property
    def user_attrs(self) -> dict[str, Any]:
        """What the worker recorded at its end."""
        seconds = (self.ended - self.started).total_seconds()
        failed = self.state == TrialState.FAIL
        last = "exception" if failed else "pruned" if self.state == TrialState.PRUNED else "finished"
        repeated = 0.0 if failed else round(seconds * (self.number % 7) / 100, 1)
        shares = {"useful": 0.0 if failed else seconds - repeated, "repeated": repeated, "lost": seconds * failed}
        step = max(self.values, default=0)
        summary = {
            "causes": [last] if self.number % 7 == 0 else ["preempted", last],
            "node": f"n{self.number % 200}",
            "seconds": seconds,
            "gpu_seconds": shares,
            "bytes": 910_000_000 + self.number,
            "step": step,
            "evaluated": step,
            "scores": self.scores,
            "steps_per_s": 2.1234567,
        }
        return ({ERROR: "exception 2 times: CUDA error"} if failed else {}) | {SUMMARY: summary}


def drawn(number: int, base: TrainConfig) -> Ended:
    """The trial of this number: always the same."""
    draw = random.Random(number)
    paper = own(base)
    params = {name: value * 4 ** draw.uniform(-1, 1) if number else value for name, value in paper.items()}
    away = sum(
        math.log(params[name] / value / (0.5 + place / 4)) ** 2 for place, (name, value) in enumerate(paper.items())
    )
    best = 0.7 - 0.03 * away + draw.gauss(0, 0.01)
    kind = number % 30
    state = TrialState.FAIL if kind == 17 else TrialState.PRUNED if kind % 10 == 4 else TrialState.COMPLETE
    evaluated = {TrialState.FAIL: 2, TrialState.PRUNED: EVALUATIONS // 2}.get(state, EVALUATIONS)
    every = base.iterations // EVALUATIONS
    values = {
        every * turn: min(1.0, max(0.0, best * (1 - 0.6**turn) + draw.gauss(0, 0.002)))
        for turn in range(1, evaluated + 1)
    }
    last = values[max(values)]
    scores = {f"val/{whose}{name}": draw.random() for whose in ("", "teacher_") for name in SCORES} | {
        "val/seg_miou": last
    }
    started = BEGAN + timedelta(seconds=TRIAL_S * (number // PARALLEL) + draw.uniform(0, 5))
    return Ended(number, state, params, values, scores, started)


def write_study(
    runs: Path, trials: int, run_folders: int = 0, storage: str | None = None, room: int = 100_000
) -> FinishedStudy:
    """The study, with so many ended trials in its storage (the journal, or a database by its URL, which must hold
    none), and run folders of the first. Its target leaves `room` for more trials."""
    data = runs / "data"
    data.mkdir(parents=True)
    planned = plan(
        Options(study=NAME, dataset="synthetic", data_folder=data, runs=runs, cluster="local", storage=storage)
    )
    define(planned)
    Retention("best").write(planned.folder)
    optuna.create_study(
        study_name=NAME, storage=open_storage(planned.folder.folder, storage is not None), direction="maximize"
    )
    made = FinishedStudy.of(planned.folder, storage is not None)
    if storage:
        write_rows(storage, trials, made)
    else:
        with open(made.folder.folder / JOURNAL, "a") as file:
            file.writelines(lines(trials, made))
    for number in range(min(trials, run_folders)):
        write_run(drawn(number, made.base), made)
    Target(trials + room, trials + room, time.time()).write(made.folder)
    return made


def lines(trials: int, made: FinishedStudy) -> Iterator[str]:
    """The journal's lines, those of trials that were trained side by side one after the other in turn."""
    dump = json.JSONEncoder(separators=(",", ":")).encode
    distributions = {name: distribution_to_json(found) for name, found in ranges(made.base).items()}
    for first in range(0, trials, PARALLEL):
        together = [drawn(number, made.base) for number in range(first, min(trials, first + PARALLEL))]
        for turn in zip(*(padded(records(trial, distributions, made.code)) for trial in together), strict=True):
            yield from (dump(record) + "\n" for record in turn if record)


def padded(of_a_trial: list[Record]) -> list[Record | None]:
    """Records of a trial, its start first and its end last, as many for every trial."""
    most = 6 + 1 + 1 + EVALUATIONS + 3
    *before, end = of_a_trial
    return [*before, *[None] * (most - len(of_a_trial)), end]


def records(trial: Ended, distributions: dict[str, str], code: str) -> list[Record]:
    """What claim and tell write of a trial, in their order."""
    worker = {"worker_id": f"1f243d3d-f337-416b-8ac1-{trial.number % PARALLEL:012x}-140139400055680"}
    of_it = worker | {"trial_id": trial.number}
    drawn_together = {RELATIVE: json.dumps(dict(sorted(trial.params.items())))}
    relative = [] if trial.number < STARTUP else [{"op_code": SYSTEM_ATTR} | of_it | {"system_attr": drawn_together}]
    created = {"op_code": CREATE_TRIAL} | worker | {"study_id": 0, "datetime_start": trial.started.isoformat()}
    values = None if trial.value is None else [trial.value]
    end = {"state": int(trial.state), "values": values, "datetime_complete": trial.ended.isoformat()}
    return [
        created,
        *relative,
        *(
            {"op_code": PARAM}
            | of_it
            | {"param_name": name, "param_value_internal": value, "distribution": distributions[name]}
            for name, value in trial.params.items()
        ),
        {"op_code": USER_ATTR} | of_it | {"user_attr": {CODE: [code]}},
        *(
            {"op_code": INTERMEDIATE_VALUE} | of_it | {"step": step, "intermediate_value": value}
            for step, value in trial.values.items()
        ),
        *({"op_code": USER_ATTR} | of_it | {"user_attr": {name: value}} for name, value in trial.user_attrs.items()),
        {"op_code": STATE_VALUES} | of_it | end,
    ]


def ranges(base: TrainConfig) -> dict[str, FloatDistribution]:
    """What each parameter is drawn from."""
    return {name: FloatDistribution(value / 4, value * 4, log=True) for name, value in own(base).items()}


def write_rows(url: str, trials: int, made: FinishedStudy) -> None:
    """The same trials as rows of Optuna's tables."""
    import sqlalchemy as sql
    from optuna.storages._rdb import models

    distributions = {name: distribution_to_json(found) for name, found in ranges(made.base).items()}
    finite = models.TrialValueModel.TrialValueType.FINITE
    finite_step = models.TrialIntermediateValueModel.TrialIntermediateValueType.FINITE

    def of_tables(number: int) -> Iterator[tuple[type, Record]]:
        trial = drawn(number, made.base)
        key = {"trial_id": number + 1}
        times = {
            "datetime_start": trial.started.replace(tzinfo=None),
            "datetime_complete": trial.ended.replace(tzinfo=None),
        }
        yield models.TrialModel, key | {"number": number, "study_id": 1, "state": trial.state} | times
        for name, value in trial.params.items():
            stored = {"param_name": name, "param_value": value, "distribution_json": distributions[name]}
            yield models.TrialParamModel, key | stored
        if trial.value is not None:
            yield models.TrialValueModel, key | {"objective": 0, "value": trial.value, "value_type": finite}
        for step, value in trial.values.items():
            told = {"step": step, "intermediate_value": value, "intermediate_value_type": finite_step}
            yield models.TrialIntermediateValueModel, key | told
        for name, value in ({CODE: [made.code]} | trial.user_attrs).items():
            yield models.TrialUserAttributeModel, key | {"key": name, "value_json": json.dumps(value)}
        if number >= STARTUP:
            together = json.dumps(json.dumps(dict(sorted(trial.params.items()))))
            yield models.TrialSystemAttributeModel, key | {"key": RELATIVE, "value_json": together}

    engine = sql.create_engine(url)
    with engine.begin() as connection:
        for first in range(0, trials, AT_ONCE):
            some = [row for number in range(first, min(trials, first + AT_ONCE)) for row in of_tables(number)]
            for table in dict.fromkeys(table for table, _ in some):  # trials come first, to which the others refer
                connection.execute(sql.insert(table.__table__), [row for of, row in some if of is table])
        if engine.name == "postgresql":  # numbers that were given are not counted by the sequence that gives the next
            connection.execute(sql.text("select setval('trials_trial_id_seq', :last, true)"), {"last": max(1, trials)})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sql.text("analyze"))
    engine.dispose()


def write_run(trial: Ended, made: FinishedStudy) -> None:
    """The run folder of a trial, without weights and pictures."""
    run = made.folder.run(trial.number)
    run.folder.mkdir(parents=True)
    config = replace(made.base, **trial.params)
    every = made.base.iterations // EVALUATIONS
    records = []
    for step, value in trial.values.items():
        for logged in range(step - every + every // 2, step + 1, max(1, every // 2)):
            losses = {
                f"train/{name}": 0.5 for name in ("loss", "cls_top", "cls_aux", "class", "patch", "aff", "seg", "reg")
            }
            records.append({"step": logged, **losses, "perf/steps_per_s": 2.1, "perf/peak_memory_gb": 0.5})
        records.append({"step": step, **trial.scores, "val/seg_miou": value})
    started, ended = trial.started.timestamp(), trial.ended.timestamp()
    attempt = {
        "job": f"1_{trial.number % PARALLEL}",
        "restart": 0,
        "node": "n1",
        "pid": 1,
        "ranks": 1,
        "started": started,
    }
    last = trial.user_attrs[SUMMARY]["causes"][-1]
    step = max(trial.values, default=0)
    attempt |= {"first_step": 0, "reached": step, "ended": ended, "cause": last, "detail": "", "place": ""}
    write(run.config_file, json.dumps(config.to_json()))
    write(run.metrics_file, "".join(json.dumps(record) + "\n" for record in records))
    write(run.folder / "attempts.json", json.dumps([attempt]))
    if trial.state == TrialState.COMPLETE:
        write(run.result_file, json.dumps(trial.scores))


def write(file: Path, text: str) -> None:
    """Write a file that nobody reads yet."""
    with open(os.fspath(file), "w") as opened:
        opened.write(text)
