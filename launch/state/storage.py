"""Optuna's storage of a study: a journal file that survives writers killed in mid-append."""

import gc
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.storages import BaseStorage
from optuna.storages.journal import BaseJournalBackend, JournalStorage

from fsr.errors import UserError
from fsr.files import naming, open_file
from fsr.lock import FileLock
from fsr.system_errors import nearest
from launch.state.paths import StudyFolder
from launch.state.storage_url import parse_url, secrets_of, without_password

JOURNAL = "journal.log"
STORAGE_VARIABLE = "FSR_STORAGE"  # the URL with its password: in the environment, never in a file
HIDDEN = "***"  # stands for the password in what is shown and written down
NETWORK = ("nfs", "nfs4", "cifs", "smb3", "lustre", "gpfs", "beegfs", "fuse.sshfs", "ceph", "9p", "afs")


class Lock(Protocol):
    """What FileLock and Optuna's JournalFileOpenLock and JournalFileSymlinkLock have in common."""

    def acquire(self) -> bool:
        """Wait for the lock and take it."""

    def release(self) -> None:
        """Give the lock back."""


class JournalFile(BaseJournalBackend):
    """One JSON record a line; a record counts once its newline is there.

    Optuna's own file backend appends behind what a killed writer left, and the line that this makes ruins the study
    (optuna/optuna#5138). Here an unfinished tail is ignored by readers and cut off by the next writer, so the file
    stays one that Optuna's backend and dashboard read as well.
    """

    def __init__(self, path: Path, lock: Lock) -> None:
        self._path = path
        self._lock = lock
        self._offsets = [0]  # where record n begins, for all records seen so far
        if not path.exists():  # who only reads leaves a study as it is
            open_file(path, "ab").close()

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """All whole records from number `log_number_from` on."""
        first = min(log_number_from, len(self._offsets) - 1)
        lines = self._read(self._offsets[first]).splitlines(keepends=True)
        for number, line in enumerate(lines, start=first):
            if number + 1 == len(self._offsets):
                self._offsets.append(self._offsets[number] + len(line))
        records = json.loads(b"[" + b",".join(lines) + b"]")  # all at once, in half of the time that one by one takes
        if len(records) != len(lines):
            raise ValueError(f"{self._path} has {len(records)} records in {len(lines)} lines")
        yield from records[log_number_from - first :]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add records behind the last whole one."""
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        self._lock.acquire()
        try:
            with naming(self._path), open(self._path, "r+b") as file:
                file.truncate(_end_of_records(file.fileno()))
                file.seek(0, os.SEEK_END)
                file.write(lines.encode())
                file.flush()
                os.fsync(file.fileno())
        finally:
            self._lock.release()

    def _read(self, offset: int) -> bytes:
        """The whole records from byte `offset` on.

        Readers take no lock, so a writer may cut off and write over an unfinished tail while it is being read: only
        what reads the same twice is taken.
        """
        with open(self._path, "rb", buffering=0) as file:
            records = None
            while True:
                file.seek(offset)
                again = file.read()
                if records is not None and again.startswith(records):
                    return records
                records = again[: again.rfind(b"\n") + 1]


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


def journal_storage(backend: JournalFile) -> JournalStorage:
    """Optuna's storage over this backend, which replays all records.

    Optuna would keep what it made of them as a pickle beside the journal, and to load a pickle is to run it: whoever
    may write a study's folder would run code as everybody who reads the study.
    """
    collecting = gc.isenabled()
    gc.disable()  # records have no circles, and looking for some takes a third of the time
    try:
        return JournalStorage(backend)
    finally:
        if collecting:
            gc.enable()


def open_storage(folder: Path, database: bool = False) -> BaseStorage:
    """The storage of the study whose folder this is: its journal, or the database that FSR_STORAGE names.

    Raises UserError if the database cannot be used.
    """
    if not database:
        path = folder / JOURNAL
        return journal_storage(JournalFile(path, FileLock(path.with_name(f"{JOURNAL}.lock"))))
    url = database_url(StudyFolder(folder))
    check_url(url)
    try:
        return optuna.storages.RDBStorage(url)
    except Exception as error:  # Optuna's, SQLAlchemy's or the driver's; none of them may show the password
        said = (str(error).splitlines() or [""])[0]
        if not said or any(secret in str(error) for secret in secrets_of(url)):
            said = type(error).__name__
        raise UserError(f"the storage {without_password(url)} cannot be opened: {said}") from None


def open_launched(folder: StudyFolder) -> BaseStorage:
    """The storage of a study that was launched before. Raises UserError if there is none, or it cannot be used."""
    if not folder.study_file.exists():
        raise UserError(f"there is no study in {folder.folder}; name its folder's parent with --runs")
    place = recorded_storage(folder)
    if place == JOURNAL and not (folder.folder / JOURNAL).exists():
        raise UserError(f"the journal of the study, {folder.folder / JOURNAL}, is gone; nothing tells of its trials")
    return open_storage(folder.folder, place != JOURNAL)


def recorded_storage(folder: StudyFolder) -> str:
    """Where study.json says that the study is stored: the journal, or a URL without its password."""
    place: str = json.loads(folder.study_file.read_text()).get("storage", JOURNAL)
    return place


def database_url(folder: StudyFolder) -> str:
    """URL of a study's database: FSR_STORAGE's; without it the study's own, unless that needs a password.

    Raises UserError where neither will do.
    """
    place = recorded_storage(folder) if folder.study_file.exists() else None
    url = os.environ.get(STORAGE_VARIABLE)
    if url is None and place is not None and place != JOURNAL and HIDDEN not in place:
        return place
    if url is None:
        job = "; Slurm did not pass it on to this job" if "SLURM_JOB_ID" in os.environ else ""
        shown = without_password(place or "")
        raise UserError(f"the study is stored in {shown}; set {STORAGE_VARIABLE} to its URL{job}")
    url = absolute_url(url)
    if place and place.startswith("sqlite") and place != without_password(url):  # it would be made anew, and empty
        raise UserError(
            f"the study is stored in {without_password(place)}, but {STORAGE_VARIABLE} names {without_password(url)}"
        )
    return url


def absolute_url(url: str) -> str:
    """The URL of a database, the same from any folder: a worker works in another one than the command."""
    kind, separator, path = url.partition(":///")
    if not kind.startswith("sqlite") or not separator or path.startswith((":memory:", "file:")):
        return url
    file, question, options = path.partition("?")
    return f"{kind}:///{Path(file).absolute()}{question}{options}" if file else url


def check_url(url: str) -> None:
    """Raise UserError for what can be no storage of a study."""
    parsed = parse_url(url)
    if parsed is None or parsed.get_backend_name() not in ("postgresql", "mysql", "sqlite"):
        kinds = "postgresql://…, mysql://… or sqlite:///FILE"
        hint = "; write each @ of a name or password as %40" if parsed is None and "@" in url else ""
        raise UserError(f"--storage must be {kinds}, got {without_password(url)}{hint}")
    if parsed.get_backend_name() == "sqlite":
        file = Path(parsed.database or "")
        if not file.is_absolute():
            raise UserError(
                f"--storage must name SQLite's file as in sqlite:////DIR/study.db, got {without_password(url)}"
            )
        system = file_system(nearest(file.parent))
        if system in NETWORK:
            raise UserError(
                f"SQLite loses writes on a network file system, and {file} lies on {system}; use the journal"
            )


def file_system(folder: Path) -> str | None:
    """Kind of the file system that a folder lies on (Linux); None where the system does not tell."""
    mounts = Path("/proc/self/mounts")
    if not mounts.exists():
        return None
    folder = folder.resolve()
    rows = [line.split(" ") for line in mounts.read_text().splitlines()]
    over = [(Path(row[1]), row[2]) for row in rows if folder.is_relative_to(row[1])]
    return max(over, key=lambda mount: len(mount[0].parts))[1] if over else None
