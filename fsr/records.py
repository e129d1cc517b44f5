"""The records of a run, metrics.jsonl: one JSON object a line, of losses at a step or of an evaluation."""

import json
from pathlib import Path
from typing import Any

from fsr.score_names import is_score

Record = dict[str, Any]


def is_evaluation(record: Record) -> bool:
    """Whether a record is of an evaluation, not of losses."""
    return any(is_score(name) for name in record)


def read_records(file: Path) -> tuple[list[Record], list[str]]:
    """The complete records of a file, oldest first, and a message for each damaged line.

    A missing file has no records. An unfinished last line is being written and does not count as damage.
    """
    if not file.exists():
        return [], []
    lines = file.read_bytes().split(b"\n")[:-1]
    try:
        records = json.loads(b"[" + b",".join(lines) + b"]")  # much faster than line by line
        if len(records) == len(lines) and all("step" in record for record in records):
            return records, []
    except (ValueError, TypeError):
        pass  # line by line, then, to tell which
    records, problems = [], []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            records.append({"step": record["step"], **record})
        except (ValueError, KeyError, TypeError) as error:
            problems.append(f"line {number} of {file.name}: {error!r}")
    return records, problems
