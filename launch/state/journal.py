"""The journal of a study: a file of one JSON record a line that survives writers killed in mid-append."""

import hashlib
import json
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from optuna.trial import TrialState

from fsr.errors import UserError
from fsr.files import naming, open_file
from fsr.json_file import DamagedError, parse_json
from launch.state.trial_records import Record, distribution_of

JOURNAL = "journal.log"
CHUNK = 1 << 18  # bytes of a journal that are read at once
MARKED = 4096  # bytes by which a journal is known

# What Optuna writes as `op_code`.
CREATE_STUDY, DELETE_STUDY, STUDY_USER_ATTR, STUDY_SYSTEM_ATTR, CREATE_TRIAL = range(5)
PARAM, STATE_VALUES, INTERMEDIATE_VALUE, USER_ATTR, SYSTEM_ATTR, DISCARD_TRIALS = range(5, 11)
OF_A_TRIAL = range(PARAM, DISCARD_TRIALS)
LARGEST = 10**300  # of integers that are still numbers to everybody


class Lock(Protocol):
    """What FileLock and Optuna's JournalFileOpenLock and JournalFileSymlinkLock have in common."""

    def acquire(self) -> bool:
        """Wait for the lock and take it."""

    def release(self) -> None:
        """Give the lock back."""


@dataclass(frozen=True)
class Position:
    """Between two records of a journal."""

    offset: int = 0
    """Bytes before it."""
    records: int = 0
    """Records before it."""


class JournalFile:
    """One JSON record a line; a record counts once its newline is there. Who reads goes on where he was.

    Optuna's own file backend appends behind what a killed writer left, and the line that this makes ruins the study
    (optuna/optuna#5138). Here an unfinished tail is ignored by readers and cut off by the next writer, so the file
    stays one that Optuna's backend and dashboard read as well.
    """

    def __init__(self, path: Path, lock: Lock) -> None:
        self.path = path
        self._lock = lock
        self.position = Position()
        """Where the next reading begins."""
        if not path.exists():  # who only reads leaves a study as it is
            open_file(path, "ab").close()
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise DamagedError(f"{path} is damaged: it is no regular file")
        with open(path, "rb") as file:  # its status may be an old one, of a file that another node has replaced
            found = os.fstat(file.fileno())
        self._identity = found.st_dev, found.st_ino  # of a mended one, nothing that was seen before would hold

    def read_new(self) -> list[Record]:
        """The whole records from `position` on, but not more than CHUNK bytes of them: nothing more if none is left.

        Raises DamagedError that names a line which is no JSON object.
        """
        content = self._read(self.position.offset)
        lines = content.split(b"\n")[:-1]
        records = parse_lines(lines, str(self.path), self.position.records)
        self.position = Position(self.position.offset + len(content), self.position.records + len(lines))
        return records

    def unread(self) -> int:
        """Bytes behind `position`."""
        return self.path.stat().st_size - self.position.offset

    def append_logs(self, logs: list[Record]) -> None:
        """Add records behind the last whole one."""
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        self._lock.acquire()
        try:
            with naming(self.path), open(self.path, "r+b") as file:
                file.truncate(_end_of_records(file.fileno()))
                file.seek(0, os.SEEK_END)
                file.write(lines.encode())
        finally:
            self._lock.release()
        # Closed, it is there for all others, on a network file system, too. That it survives the machine is waited for
        # without the lock: so the disk writes at once what many have appended.
        with naming(self.path), open(self.path, "rb") as file:
            os.fsync(file.fileno())

    def mark(self, offset: int) -> str | None:
        """What tells this journal, up to a byte, from another: a hash of what lies before it; None if it is shorter."""
        with open(self.path, "rb") as file:
            if os.fstat(file.fileno()).st_size < offset:
                return None
            file.seek(max(0, offset - MARKED))
            return hashlib.sha256(file.read(min(offset, MARKED))).hexdigest()

    def _read(self, offset: int) -> bytes:
        """Whole records from byte `offset` on, of about CHUNK bytes at most.

        Readers take no lock, so a writer may cut off and write over an unfinished tail while it is being read: only
        what reads the same twice is taken.
        """
        with open(self.path, "rb", buffering=0) as file:
            found = os.fstat(file.fileno())
            if (found.st_dev, found.st_ino) != self._identity:
                raise UserError(f"{self.path} was replaced while this process used it; start it again")
            records, most = None, CHUNK
            while found.st_size > offset:
                file.seek(offset)
                again = file.read(most)
                if records is not None and again.startswith(records):
                    return records
                records = again[: again.rfind(b"\n") + 1]
                if not records and len(again) == most:  # a record longer than that
                    records, most = None, 2 * most
            return b""


def _end_of_records(file: int) -> int:
    """Size of the file without an unfinished last line."""
    end = os.fstat(file).st_size
    while end > 0:
        start = max(0, end - 4096)
        newline = os.pread(file, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def parse_lines(lines: Sequence[bytes], place: str, first: int = 0) -> list[Record]:
    """The records of a file's lines, of which the first has the number `first` + 1.

    Raises DamagedError that names the first line which is no JSON object.
    """
    try:
        records = json.loads(b"[" + b",".join(lines) + b"]")  # all at once, in half of the time that one by one takes
        if len(records) == len(lines) and all(type(record) is dict for record in records):
            return records  # type: ignore[no-any-return]
    except (ValueError, RecursionError):
        pass
    return [parse_json(line, Record, f"{place}: line {number}") for number, line in enumerate(lines, first + 1)]


class RecordCheck:
    """Whether records, one after the other, are what Optuna writes.

    Optuna itself raises whatever comes of a damaged record, or passes it over in silence: without the record that
    makes a trial, all that follows would be told of its neighbours.
    """

    def __init__(self, study: str | None = None, trials: int = 0) -> None:
        """`study` and `trials` are what the records before the first one make."""
        self.seen = 0
        """Records that were looked at."""
        self.trials = trials
        """Trials that they make."""
        self._studies: dict[int, str] = {} if study is None else {0: study}
        self._made = len(self._studies)  # studies, with those that were deleted

    def look(self, record: Record) -> str | None:
        """What is wrong with the next record; None if nothing is. Only a right one counts."""
        try:
            op = record["op_code"]
            check = CHECKS.get(op) if type(op) is int else None
            if check is None:
                return f"it has op_code {str(op)[:20]}"
            if type(record["worker_id"]) is not str:
                return "its worker_id is no text"
            if PARAM <= op < DISCARD_TRIALS:
                trial = record["trial_id"]
                if type(trial) is not int or not 0 <= trial < self.trials:
                    return f"it tells of trial {str(trial)[:20]}, and none of that number was made before"
            elif op not in (CREATE_STUDY, DISCARD_TRIALS):
                study = record["study_id"]
                if type(study) is not int or not 0 <= study < self._made:
                    return f"it tells of study {str(study)[:20]}, and none of that number was made before"
            if not check(record):
                return "its values are not such as Optuna writes"
        except KeyError as error:
            return f"it has no {error.args[0]}"
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            return str(error)[:100]
        self.seen += 1
        if op < PARAM:
            self._count(op, record)
        return None

    def _count(self, op: int, record: Record) -> None:
        if op == CREATE_STUDY and record["study_name"] not in self._studies.values():
            self._studies[self._made] = record["study_name"]
            self._made += 1
        elif op == DELETE_STUDY:
            self._studies.pop(record["study_id"], None)
        elif op == CREATE_TRIAL and record["study_id"] in self._studies:
            self.trials += 1


class StudyJournal(JournalFile):
    """The journal of a study, whose records are looked at before they count."""

    def __init__(self, path: Path, lock: Lock) -> None:
        super().__init__(path, lock)
        self.check = RecordCheck()
        self._own: set[str] = set()  # worker ids under which this process writes
        self._damage: str | None = None

    def append_logs(self, logs: list[Record]) -> None:
        """Add records behind the last whole one."""
        self._own |= {log["worker_id"] for log in logs}
        super().append_logs(logs)

    def read_new(self) -> list[Record]:
        """The next records. Raises DamagedError that names a line which is no record of Optuna's."""
        if self._damage:  # nothing behind it counts, however often it is read
            raise DamagedError(self._damage)
        first = self.position.records
        records = super().read_new()
        for number, record in enumerate(records, first + 1):
            wrong = self.check.look(record)
            if wrong and record.get("worker_id") not in self._own:  # what this process writes, it has looked at itself
                self._damage = f"{self.path}: line {number} is damaged: {wrong}"
                raise DamagedError(self._damage)
        return records


def _time(text: Any) -> bool:
    return text is None or bool(datetime.fromisoformat(text))


def _number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < LARGEST)


def _is_trial(record: Record) -> bool:
    distributions = {name: distribution_of(text) for name, text in record.get("distributions", {}).items()}
    for name, value in record.get("params", {}).items():
        distributions[name].to_external_repr(value)
    values = record.get("values")
    return (
        _time(record["datetime_start"])
        and _time(record.get("datetime_complete"))
        and bool(TrialState(record.get("state", 0)) is not None)
        and (values is None or (type(values) is list and all(map(_number, values))))
        and (record.get("value") is None or _number(record["value"]))
        and type(record.get("user_attrs", {})) is type(record.get("system_attrs", {})) is dict
        and all(int(step) >= 0 for step in record.get("intermediate_values", {}))
    )


def _is_param(record: Record) -> bool:
    value = record["param_value_internal"]
    if type(record["param_name"]) is not str or not _number(value):
        return False
    distribution_of(record["distribution"]).to_external_repr(value)
    return True


def _is_state(record: Record) -> bool:
    state, values = TrialState(record["state"]), record["values"]
    time = "datetime_complete" if state.is_finished() else "datetime_start" if state == TrialState.RUNNING else None
    return (time is None or bool(datetime.fromisoformat(record[time]))) and (
        values is None or (type(values) is list and all(map(_number, values)))
    )


def _is_one(name: str) -> Callable[[Record], bool]:
    return lambda record: type(record[name]) is dict and len(record[name]) == 1


CHECKS: dict[int, Callable[[Record], bool]] = {
    CREATE_STUDY: lambda record: (
        type(record["study_name"]) is str and bool(record["directions"]) and set(record["directions"]) <= {0, 1, 2}
    ),
    DELETE_STUDY: lambda record: True,
    STUDY_USER_ATTR: _is_one("user_attr"),
    STUDY_SYSTEM_ATTR: _is_one("system_attr"),
    CREATE_TRIAL: _is_trial,
    PARAM: _is_param,
    STATE_VALUES: _is_state,
    INTERMEDIATE_VALUE: lambda record: type(record["step"]) is int and _number(record["intermediate_value"]),
    USER_ATTR: _is_one("user_attr"),
    SYSTEM_ATTR: _is_one("system_attr"),
    DISCARD_TRIALS: lambda record: True,
}
