"""Optuna's storage of a study: its journal, or a database."""

import os
from pathlib import Path

import optuna
from typing_extensions import NotRequired, TypedDict

from fsr.errors import UserError
from fsr.json_file import DamagedError, read_json
from fsr.system_errors import nearest
from launch.state.database_storage import DatabaseStorage
from launch.state.journal import JOURNAL
from launch.state.journal_storage import open_journal
from launch.state.paths import StudyFolder, no_study
from launch.state.storage_url import parse_url, secrets_of, without_password
from launch.state.study_storage import StudyStorage

STORAGE_VARIABLE = "FSR_STORAGE"  # the URL with its password: in the environment, never in a file
HIDDEN = "***"  # stands for the password in what is shown and written down
NETWORK = ("nfs", "nfs4", "cifs", "smb3", "lustre", "gpfs", "beegfs", "fuse.sshfs", "ceph", "9p", "afs")


class Stored(TypedDict):
    """What study.json says of where the study is stored."""

    storage: NotRequired[str]


def open_storage(folder: Path, database: bool = False) -> StudyStorage:
    """The storage of the study whose folder this is: its journal, or the database that FSR_STORAGE names.

    Raises UserError if the database cannot be used.
    """
    if not database:
        return open_journal(folder / JOURNAL)
    url = database_url(StudyFolder(folder))
    check_url(url)
    try:
        return DatabaseStorage(url)
    except Exception as error:  # Optuna's, SQLAlchemy's or the driver's; none of them may show the password
        said = (str(error).splitlines() or [""])[0]
        if not said or any(secret in str(error) for secret in secrets_of(url)):
            said = type(error).__name__
        raise UserError(f"the storage {without_password(url)} cannot be opened: {said}") from None


def open_launched(folder: StudyFolder) -> StudyStorage:
    """The storage of a study that was launched before. Raises UserError if there is none, or it cannot be used."""
    if not folder.study_file.exists():
        if folder.trial_folders() or (folder.folder / JOURNAL).exists():
            raise DamagedError(f"{folder.study_file} is gone, although {folder.folder} holds trials or a journal")
        raise UserError(no_study(folder))
    place = recorded_storage(folder)
    if place == JOURNAL and not (folder.folder / JOURNAL).exists():
        raise DamagedError(f"the journal of the study, {folder.folder / JOURNAL}, is gone; nothing tells of its trials")
    return open_storage(folder.folder, place != JOURNAL)


def load_launched(folder: StudyFolder) -> optuna.Study:
    """A study that was launched before. Raises as `open_launched`, and DamagedError if its storage has lost it."""
    storage = open_launched(folder)
    try:
        return optuna.load_study(study_name=folder.name, storage=storage)
    except KeyError:
        raise DamagedError(f"{place_of(folder)} holds no study {folder.name}") from None


def check_not_lost(folder: StudyFolder, storage: StudyStorage) -> None:
    """Raise DamagedError if trials lie in the study's folder of which its storage does not know: a new study would take
    them for its own."""
    try:
        known = storage.ask(storage.get_study_id_from_name(folder.name), len)
    except KeyError:
        known = 0
    unknown = folder.trial_folders(first=known)
    if unknown:
        raise DamagedError(
            f"{unknown[0]} is there, but {place_of(folder)} knows {known or 'no'} trials of study {folder.name}"
        )


def place_of(folder: StudyFolder) -> str:
    """The study's storage, in words."""
    place = recorded_storage(folder)
    return f"the journal {folder.folder / JOURNAL}" if place == JOURNAL else f"the storage {without_password(place)}"


def recorded_storage(folder: StudyFolder) -> str:
    """Where study.json says that the study is stored: the journal, or a URL without its password."""
    return read_json(folder.study_file, Stored, newer=True).get("storage", JOURNAL)


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
