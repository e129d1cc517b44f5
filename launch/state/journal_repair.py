"""Mends a journal: what is damaged in it is set aside, and what that told is told again from the runs.

A record that is lost must not let the records behind it be told of another trial, nor a trial be compared by parameters
that it never had.
"""

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import TrialState

from fsr.json_file import UNREADABLE, DamagedError, parse_json, read_json
from fsr.run import Run
from fsr.setting_text import stored
from launch.state.attempts import AttemptLog
from launch.state.hparams import plain, read_hparams
from launch.state.journal import (
    CREATE_STUDY,
    CREATE_TRIAL,
    INTERMEDIATE_VALUE,
    OF_A_TRIAL,
    PARAM,
    STATE_VALUES,
    USER_ATTR,
    RecordCheck,
)
from launch.state.paths import Definition, StudyFolder
from launch.state.trial_records import Record, distribution_of
from launch.state.trials import ERROR, REPEATS, SEED

MAXIMIZE = 2
WRITER = {"worker_id": "doctor"}
MADE_A_TRIAL = re.compile(rb'"op_code":\s*4\b')


@dataclass
class Mended:
    """A journal as it is to be."""

    records: list[Record]
    damaged: list[tuple[int, str, bytes]]
    """Lines that are set aside: number, what is wrong, content."""
    done: list[str] = field(default_factory=list)
    """What else was changed, in words."""

    def content(self) -> bytes:
        """The file."""
        return b"".join(json.dumps(record, separators=(",", ":")).encode() + b"\n" for record in self.records)

    @property
    def is_sound(self) -> bool:
        """Whether nothing had to be mended."""
        return not self.damaged and not self.done


def mend(content: bytes, folder: StudyFolder, definition: Definition) -> Mended:
    """The journal of a study from what is left of it (without an unfinished last line) and the trials' folders."""
    lines = content.split(b"\n")[:-1]
    makers = {number for number, line in enumerate(lines) if _is_damaged(line) and MADE_A_TRIAL.search(line)}
    while True:
        mended, lacks = _keep_sound(lines, makers, folder.name)
        others = {number - 1 for number, *_ in mended.damaged} - makers
        if not lacks or not others:
            break
        makers.add(min(others))  # a record tells of a trial that none makes: a damaged line must have made it
    _restore_trials(mended, folder, definition)
    return mended


def _is_damaged(line: bytes) -> bool:
    try:
        parse_json(line, Record, "line")
    except DamagedError:
        return True
    return False


def _keep_sound(lines: Sequence[bytes], makers: set[int], study: str) -> tuple[Mended, bool]:
    """The records that are sound, if these damaged lines made trials; and whether one tells of a trial that none
    made."""
    check, mended, lacks = RecordCheck(), Mended([], []), False
    for number, line in enumerate(lines):
        try:
            record = parse_json(line, Record, f"line {number + 1}")
            wrong = check.look(record)
        except DamagedError as error:
            record, wrong = {}, str(error).partition(" is damaged: ")[2]
        if not check.seen and (wrong or record["op_code"] != CREATE_STUDY):
            made = _study(study)
            check.look(made)
            mended.records.append(made)
            mended.done.append("the record that makes the study is written again")
            wrong = check.look(record) if record else wrong
        if not wrong:
            mended.records.append(record)
            continue
        mended.damaged.append((number + 1, wrong, line))
        trial = record.get("trial_id")
        lacks |= record.get("op_code") in OF_A_TRIAL and type(trial) is int and trial >= check.trials
        if number in makers:
            made = _trial()
            check.look(made)
            mended.records.append(made)
            mended.done.append(f"line {number + 1} made trial {check.trials - 1}, which is made again")
    return mended, lacks


def _restore_trials(mended: Mended, folder: StudyFolder, definition: Definition) -> None:
    """Tell again, from the runs, what the records lack."""
    if not mended.records:
        mended.records.append(_study(folder.name))
        mended.done.append("the record that makes the study is written again")
    trials = _trials(mended.records)
    numbers = [int(path.name.removeprefix("trial_")) for path in folder.trial_folders()]
    missing = range(len(trials), max(numbers, default=-1) + 1)
    for number in missing:
        mended.records.append(_trial())
        mended.done.append(f"trial {number} is made again")
    for number, told in enumerate([*trials, *({} for _ in missing)]):
        run = folder.run(number)
        if number in missing and not run.folder.exists():
            _end(mended, number, "nothing is left of it")
        elif run.config_file.exists():
            _restore_trial(mended, number, told, run, definition, new=number in missing)


def _restore_trial(
    mended: Mended, number: int, told: dict[str, Any], run: Run, definition: Definition, new: bool
) -> None:
    space = {name: distribution_of(json.dumps(text)) for name, text in definition["space"].items() if text}
    suspect = new or bool(mended.damaged)  # else it has the parameters that its study asked for
    lost = [name for name in space if suspect and name not in told.get("params", {})]
    ended = told.get("state") in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    try:
        values = _parameters(run, space)
    except UNREADABLE:
        values = {}
    if lost and told.get("state") != TrialState.FAIL:
        if not all(name in values for name in lost):
            _end(mended, number, f"its parameters {', '.join(lost)} are lost")
            return
        params = [
            {"trial_id": number, "param_name": name, "param_value_internal": space[name].to_internal_repr(values[name])}
            | {"op_code": PARAM, "distribution": json.dumps(definition["space"][name])}
            for name in lost
        ]
        _insert(mended, number, params)
        mended.done.append(f"trial {number} has its {', '.join(lost)} again from its run")
    if not told.get("seed_known", True) or new:
        _restore_seed(mended, number, run, values, definition)
    if not ended:
        _restore_end(mended, number, run, definition["metric"], new)


def _restore_seed(mended: Mended, number: int, run: Run, values: dict[str, Any], definition: Definition) -> None:
    """A repeat is told by its seed."""
    try:
        seed = read_json(run.config_file, dict[str, Any]).get("seed")
    except UNREADABLE:
        return
    if seed == definition["base"]["seed"]:
        return
    of = [n for n, told in enumerate(_trials(mended.records)[:number]) if told["params"] == values and SEED not in told]
    attributes = {SEED: seed, REPEATS: of[0] if of else 0}
    _insert(mended, number, [_attribute(number, name, value) for name, value in attributes.items()])
    mended.done.append(f"trial {number} is a repeat of trial {attributes[REPEATS]} with seed {seed} again")


def _restore_end(mended: Mended, number: int, run: Run, metric: str, new: bool) -> None:
    """A trial that was pruned must not be resumed; of a new record, one that has finished not be trained."""
    try:
        attempts, result = AttemptLog(run).attempts(), run.result()
        evaluations = [(record["step"], record[metric]) for record in run.metrics() if metric in record] if new else []
    except UNREADABLE:
        return
    mended.records += [
        {"op_code": INTERMEDIATE_VALUE, **WRITER, "trial_id": number, "step": step, "intermediate_value": value}
        for step, value in evaluations
        if math.isfinite(value)
    ]
    if new and result and math.isfinite(result.get(metric) or math.nan):
        mended.records.append(_state(number, TrialState.COMPLETE, [result[metric]]))
        mended.done.append(f"trial {number} is complete again with {metric} {result[metric]:.4f}")
    elif attempts and attempts[-1].cause == "pruned":
        mended.records.append(_state(number, TrialState.PRUNED, None))
        mended.done.append(f"trial {number} is pruned again")


def _end(mended: Mended, number: int, why: str) -> None:
    """Let a trial fail: the next sweep replaces it."""
    mended.records = [
        record for record in mended.records if not (record["op_code"] == STATE_VALUES and record["trial_id"] == number)
    ]
    mended.records += [_attribute(number, ERROR, f"given up by doctor: {why}"), _state(number, TrialState.FAIL, None)]
    mended.done.append(f"trial {number} failed, as {why}; the next sweep replaces it")


def _parameters(run: Run, space: dict[str, BaseDistribution]) -> dict[str, Any]:
    """The parameters of a run, as far as its records tell them: TensorBoard's HParams, or fields of its config."""
    config, hparams = read_json(run.config_file, dict[str, Any]), read_hparams(run)
    found = {}
    for name, distribution in space.items():
        if name in hparams and isinstance(distribution, CategoricalDistribution):
            told = next((choice for choice in distribution.choices if plain(choice, distribution) == hparams[name]), ())
        elif name in hparams or name in config:
            told = hparams.get(name, stored(config.get(name)))
        else:
            continue
        try:
            found[name] = distribution.to_external_repr(distribution.to_internal_repr(told))
        except (ValueError, TypeError):
            continue
    return found


def _trials(records: Iterable[Record]) -> list[dict[str, Any]]:
    """What the records tell of each trial: `params`, `state`, attributes."""
    trials: list[dict[str, Any]] = []
    for record in records:
        if record["op_code"] == CREATE_TRIAL:
            known = "user_attrs" in record or record["worker_id"] != WRITER["worker_id"]
            state = TrialState(record.get("state", TrialState.RUNNING))
            space = record.get("distributions", {})
            params = {n: distribution_of(space[n]).to_external_repr(v) for n, v in record.get("params", {}).items()}
            trials.append({"params": params, "state": state, "seed_known": known, **record.get("user_attrs", {})})
        elif record["op_code"] in OF_A_TRIAL:
            told = trials[record["trial_id"]]
            if record["op_code"] == PARAM:
                distribution = distribution_of(record["distribution"])
                told["params"][record["param_name"]] = distribution.to_external_repr(record["param_value_internal"])
            elif record["op_code"] == STATE_VALUES:
                told["state"] = TrialState(record["state"])
            elif record["op_code"] == USER_ATTR:
                told |= record["user_attr"]
    return trials


def _insert(mended: Mended, number: int, records: list[Record]) -> None:
    """Put records right behind the one that makes the trial: before it ended."""
    makers = [place for place, record in enumerate(mended.records) if record["op_code"] == CREATE_TRIAL]
    mended.records[makers[number] + 1 : makers[number] + 1] = [WRITER | record for record in records]


def _study(name: str) -> Record:
    return {"op_code": CREATE_STUDY, **WRITER, "study_name": name, "directions": [MAXIMIZE]}


def _trial() -> Record:
    return {"op_code": CREATE_TRIAL, **WRITER, "study_id": 0, "datetime_start": _now()}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")


def _state(number: int, state: TrialState, values: list[float] | None) -> Record:
    record = {"op_code": STATE_VALUES, **WRITER, "trial_id": number, "state": int(state), "values": values}
    return record | {"datetime_complete": _now()}


def _attribute(number: int, name: str, value: Any) -> Record:
    return {"op_code": USER_ATTR, **WRITER, "trial_id": number, "user_attr": {name: value}}
