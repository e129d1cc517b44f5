"""The records of a run, metrics.jsonl: one JSON object a line, of losses at a step or of an evaluation; its result."""

import json
import math
from itertools import chain
from pathlib import Path
from typing import Any

from fsr.json_file import DamagedError, parse_json, read_whole
from fsr.score_names import PREFIX, is_score

Record = dict[str, Any]
Result = dict[str, Any]
"""Scores of the last evaluation (None where they are none), `step`, `seconds` of training and `best/seg_miou`."""
LARGEST = 10**12  # of integers


def is_evaluation(record: Record) -> bool:
    """Whether a record is of an evaluation, not of losses."""
    return any(is_score(name) for name in record)


def read_records(file: Path) -> tuple[list[Record], list[str]]:
    """The complete records of a file, oldest first, and a message for each damaged line, which is left out.

    A missing file has no records. Raises OSError, and DamagedError if it is no regular file.
    """
    try:
        lines = complete_lines(file)
    except FileNotFoundError:
        return [], []
    try:
        records = json.loads(b"[" + b",".join(lines) + b"]")  # much faster than line by line
        if len(records) == len(lines) and (_all_sound(records) or not any(map(check_record, records))):
            return records, []
    except (ValueError, RecursionError):
        pass  # line by line, then, to tell which
    records, problems = [], []
    for number, line in enumerate(lines, 1):
        try:
            record = parse_json(line, Record, f"line {number} of {file.name}")
            wrong = check_record(record)
            if wrong:
                raise DamagedError(f"line {number} of {file.name} is damaged: {wrong}")
            records.append(record)
        except DamagedError as error:
            problems.append(str(error))
    return records, problems


def complete_lines(file: Path) -> list[bytes]:
    """The lines of a file of records. An unfinished last line is being written and is none of them, but zeros where
    nothing else is left are one: a machine's crash left them, and it is damaged. Raises as `read_records` does, and
    FileNotFoundError."""
    *lines, unfinished = read_whole(file).split(b"\n")
    return lines or ([unfinished] if unfinished and not unfinished.strip(b"\0") else [])


def _all_sound(records: list[Any]) -> bool:
    """Whether `check_record` finds nothing wrong, asked of all records at once, which takes a tenth of the time. False
    of what it would have to look into, such as scores that could not be measured."""
    if set(map(type, records)) != {dict}:
        return False
    steps = [record.get("step") for record in records]
    kinds = [*map(type, chain.from_iterable(map(dict.values, records)))]
    if set(map(type, steps)) != {int} or not 0 <= min(steps) <= max(steps) <= LARGEST:
        return False
    if kinds.count(int) != len(records) or kinds.count(float) != len(kinds) - len(records):
        return False
    for name in set().union(*records):
        if name.startswith(PREFIX):
            scores = [record[name] for record in records if name in record]
            if not 0 <= min(scores) <= max(scores) <= 1:
                return False
    return True


def check_record(record: Any) -> str | None:
    """What is wrong with a record; None if nothing is."""
    if type(record) is not dict:
        return "it is no object"
    if "step" not in record:
        return "it has no step"
    return check_values(record)


def check_values(values: dict[str, Any]) -> str | None:
    """What is wrong with the values of a record or of a result: each is a number, a finite score one from 0 to 1, and
    None a score that could not be measured."""
    scores = [value for name, value in values.items() if name.startswith(PREFIX)]
    kinds, step = list(map(type, values.values())), values.get("step")
    numbers = type(step) is int and 0 <= step <= LARGEST and kinds.count(float) == len(kinds) - 1
    if numbers and (not scores or 0 <= min(scores) <= max(scores) <= 1):
        return None  # nearly all of them, at once
    for name, value in values.items():
        if value is None and name.startswith(PREFIX):
            continue
        if type(value) is not float and (type(value) is not int or abs(value) > LARGEST):
            return f"{name[:60]} is {_shown(value)}, not a number"
        if name.startswith(PREFIX) and not 0 <= value <= 1 and math.isfinite(value):
            return f"{name[:60]} is {_shown(value)}, not a score from 0 to 1"
    step = values.get("step", 0)
    return None if type(step) is int and step >= 0 else f"step is {_shown(step)}"


def _shown(value: Any) -> str:
    return repr(value)[:60] if type(value) is not int or abs(value) <= LARGEST else "a number far too large"
