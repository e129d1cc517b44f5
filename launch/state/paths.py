"""The folder of a study, or of one run that is put on machines: every path in it, named once."""

import itertools
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from typing_extensions import NotRequired, TypedDict

from fsr.errors import UserError
from fsr.files import make_folder, write_atomically, write_json
from fsr.inference.journal import Results
from fsr.json_file import DamagedError, read_json
from fsr.lock import FileLock
from fsr.regular_file import read_regular
from fsr.run import Run
from launch.state.attempts import AttemptLog
from launch.state.code_snapshot import CodeFolder

IDENTITY = re.compile(r"[0-9a-f]{8}")
IN_ONE_FOLDER = 10_000  # entries: what every file system lists and searches fast, and shells can spell out
TRIAL = re.compile(r"trial_(\d{4}|[1-9]\d{4,8})")
TRIALS = re.compile(r"trials_\d{4,5}")  # a folder of the trials from 10 000, 20 000, … on
LOCK = re.compile(r"\d{4,9}\.lock")
MARK = re.compile(r"\d{1,9}")
MISTAKE = re.compile(r"\d+|(\d+(_\d+)?|local|import)_\d+")  # a job, mostly with a process
MOST_MISTAKES = 1000
MOST_NAMED = 20  # studies in one sentence
Keep = Literal["best", "all", "none"]  # of the weights of trials that have ended
UNIDENTIFIED = "????????"  # what a dry run shows in the place of an id


class Identity(TypedDict):
    """What the file of an id says, or study.json beside all else."""

    id: NotRequired[str]


class Definition(TypedDict):
    """What study.json says: how the study was launched, which no later call may change."""

    study: NotRequired[str]
    id: NotRequired[str]
    """None in a study of version 0.1.0, as of all that is not required."""
    code: NotRequired[str]
    """The code version that defined it."""
    metric: str
    base: dict[str, Any]
    """The configuration that every trial starts from."""
    space: dict[str, Any]
    """The parameters and their ranges."""
    storage: NotRequired[str]
    """The journal, or a database's URL without its password."""
    considered: NotRequired[dict[str, int]]
    """Of the trials that have ended, how many of the newest and the best its sampler and pruner see."""
    target: NotRequired[int]
    launched: NotRequired[dict[str, Any]]
    """Where and when, as in provenance.json."""


def place_of_trial(folder: Path, number: int, name: str) -> Path:
    """Where in a folder with something of each trial that of this trial has its place: in the folder itself below
    10 000; then `trials_0001/` holds that of 10 000 to 19 999, `trials_0002/` that of the next 10 000, and so on.

    A study of an earlier version has all in the folder itself, and what is there stays where it is.
    """
    part = number // IN_ONE_FOLDER
    flat = folder / name
    return flat if not part or os.path.lexists(flat) else folder / f"trials_{part:04d}" / name


def entries_of_trials(folder: Path, first: int = 0) -> Iterator["os.DirEntry[str]"]:
    """All that lies in the places of the trials from `first` on, in no order, and what a trial has in two places at
    last in the one that counts; nothing where there is no folder.

    Folders whose trials all have lower numbers are not read, and no entry is asked for more than its name.
    """
    flat = []
    for entry in _entries(folder):
        if not TRIALS.fullmatch(entry.name):
            flat.append(entry)
        elif (int(entry.name[7:]) + 1) * IN_ONE_FOLDER > first:
            yield from _entries(entry)
    yield from flat


def _entries(folder: "Path | os.DirEntry[str]") -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def folders_of_trials(folder: Path, first: int = 0) -> dict[int, Path]:
    """The folders `trial_0012` of trials from `first` on that are there, by number, in its order."""
    found = {}
    for entry in entries_of_trials(folder, first):
        if TRIAL.fullmatch(entry.name) and (number := int(entry.name[6:])) >= first:
            found[number] = entry.path
    return {number: Path(found[number]) for number in sorted(found)}


class LaunchFolder:
    """What anything that is put on machines keeps beside its results."""

    option = "--runs"
    """The flag that takes another folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.stop_file = self.folder / "stop"
        self.code = CodeFolder(self.folder / "code")
        self.slurm = self.folder / "slurm"
        self.identity_file = self.slurm / "identity.json"
        self.locks = self.folder / "locks"
        self.bad_nodes = self.locks / "bad_nodes"
        self.mistakes_folder = self.folder / "mistakes"

    @property
    def name(self) -> str:
        """The folder's own name; a study's is its identity."""
        return self.folder.name

    @property
    def identity(self) -> str | None:
        """The id by which its Slurm jobs are known, whatever path leads here; None before `identify`."""
        try:
            identity = read_json(self.identity_file, Identity, newer=True).get("id")
        except FileNotFoundError:
            return None
        if identity is not None and not IDENTITY.fullmatch(identity):
            raise DamagedError(f"{self.identity_file} is damaged: its id is {identity[:60]!r}")
        return identity

    def identify(self) -> str:
        """The id, drawn if there is none yet. The sweep lock must be held."""
        if self.identity is None:
            write_json(self.identity_file, {"id": new_identity()})
        identity = self.identity
        assert identity is not None
        return identity

    @property
    def job_name(self) -> str:
        """Name of all its Slurm jobs; ends with its id."""
        return f"fsr-{re.sub(r'[^A-Za-z0-9_.-]', '_', self.folder.name)}-{self.identity or UNIDENTIFIED}"

    @property
    def comment(self) -> str:
        """Comment of all its Slurm jobs, which has its id as well: some sites rewrite the one, some the other."""
        return f"fsr {self.identity or UNIDENTIFIED}"

    def worker_lock(self, process: int) -> FileLock:
        """Held by a local worker, by its process, for as long as it lives."""
        return FileLock(self.locks / f"local_{process}.lock")

    def job_log(self, job_id: str) -> Path:
        """Where the batch script of a job and its rank 0 write their errors; beside it is `…_log.out`."""
        own = self.array_logs(job_id.partition("_")[0])
        return (own if own.is_dir() else self.slurm) / f"{job_id}_0_log.err"

    def array_logs(self, array: str) -> Path:
        """The folder of the logs of an array's jobs, if it is a large one; those of others lie in `slurm` itself."""
        return self.slurm / array

    def stop_reason(self) -> str | None:
        """Why its workers were stopped, as the stop file says; a user's own file says nothing. None without one."""
        try:
            return read_regular(self.stop_file).decode("utf-8", "replace").strip()
        except OSError:
            return None

    def record_mistake(self, worker: str, sentence: str) -> None:
        """Leave a sentence on what the user has to mend, for the one who started the worker; of a thousand workers who
        make the same mistake, the next one's is not needed."""
        if len(self._mistake_files()) < MOST_MISTAKES:
            write_atomically(self.mistakes_folder / worker, sentence.encode())

    def mistakes(self) -> list[str]:
        """The sentences that workers left since they were started."""
        sentences = []
        for file in sorted(self._mistake_files()):
            with suppress(FileNotFoundError):  # another node may just have forgotten it
                sentences.append(file.read_text("utf-8", "replace"))
        return sentences

    def forget_mistakes(self) -> None:
        """Remove the sentences: workers are started anew. Jobs, which know no modes, find the folder there."""
        make_folder(self.mistakes_folder)
        for file in self._mistake_files():
            file.unlink(missing_ok=True)

    def _mistake_files(self) -> list[Path]:
        """Those that workers left, and nothing else that may lie there."""
        entries = os.scandir(self.mistakes_folder) if self.mistakes_folder.is_dir() else ()
        return [Path(entry) for entry in entries if MISTAKE.fullmatch(entry.name) and entry.is_file()]

    def sweep_lock(self, local: bool = False) -> FileLock:
        """Held by the one process that submits, or sweeps on this machine for as long as it lives.

        The workers of a `local` sweep look for its process there. Those of older code versions expect nothing but its
        number, and would leave.
        """
        return FileLock(self.locks / "sweep.lock", machine=not local)


def new_identity() -> str:
    """An id that nothing else has."""
    return secrets.token_hex(4)


class StudyFolder(LaunchFolder):
    """Everything that a study leaves behind: its definition, Optuna's journal, one run folder a trial."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.study_file = self.identity_file = self.folder / "study.json"
        self.target_file = self.folder / "target.json"
        self.keep_file = self.folder / "keep.json"
        self.stopped_file = self.folder / "stopped.json"
        self.ended = self.folder / "ended"
        self.set_aside = self.folder / "set_aside"

    @classmethod
    def in_runs(cls, runs: Path, study: str) -> "StudyFolder":
        """The folder of a study in the folder of all studies, the same by whatever links and `..` lead there.

        Raises UserError for what can be no study's name.
        """
        check_study_name(study)
        return cls((runs / study).resolve())

    def run(self, number: int) -> Run:
        """The run folder of a trial."""
        return Run(place_of_trial(self.folder, number, f"trial_{number:04d}"))

    def definition(self) -> Definition:
        """What study.json says. Raises FileNotFoundError, DamagedError."""
        definition = read_json(self.study_file, Definition, newer=True)
        for name in ("iterations", "seed"):
            if type(definition["base"].get(name)) is not int:
                raise DamagedError(f"{self.study_file} is damaged: base.{name} is {definition['base'].get(name)!r:.60}")
        if definition.get("study", self.name) != self.name:
            raise DamagedError(f"{self.study_file} is damaged: it is of study {definition['study']!r:.60}")
        return definition

    def trial_folders(self, first: int = 0) -> list[Path]:
        """The folders of its trials from `first` on that are there, by number."""
        return list(folders_of_trials(self.folder, first).values())

    def has_runs(self) -> bool:
        """Whether a trial has begun to train."""
        return any(Run(folder).config_file.exists() for folder in self.trial_folders())

    def attempt_log(self, number: int) -> AttemptLog:
        """The attempts on a trial."""
        return AttemptLog(self.run(number))

    def claim_lock(self) -> FileLock:
        """Held while a worker chooses its trial."""
        return FileLock(self.locks / "claim.lock")

    def trial_lock(self, number: int) -> FileLock:
        """Held by the worker that trains this trial; a running trial whose lock is free was interrupted."""
        return FileLock(place_of_trial(self.locks, number, f"{number:04d}.lock"))

    def trial_locks(self) -> list[FileLock]:
        """The locks of all trials that ever had a worker, by number."""
        files = {int(entry.name[:-5]): entry for entry in entries_of_trials(self.locks) if LOCK.fullmatch(entry.name)}
        return [FileLock(Path(files[number])) for number in sorted(files)]

    def ended_mark(self, number: int) -> Path:
        """The mark that a trial is about to be told as ended; it is gone when all of its end is done."""
        return place_of_trial(self.ended, number, str(number))

    def ended_marks(self) -> set[int]:
        """Numbers of the trials with such a mark."""
        return {int(entry.name) for entry in entries_of_trials(self.ended) if MARK.fullmatch(entry.name)}

    def aside(self, number: int) -> Path:
        """The first place for what stands in a trial's place and is another's that nothing has yet."""
        names = (f"trial_{number:04d}_{count}" for count in itertools.count(1))
        places = (place_of_trial(self.set_aside, number, name) for name in names)
        return next(place for place in places if not os.path.lexists(place))


def check_study_name(name: str) -> None:
    """Raise UserError unless `name` can be a study's name, and so a folder's."""
    if not re.fullmatch("[a-z0-9_-]+", name):
        raise UserError(f"a study's name consists of a-z, 0-9, _ and -, got {name!r}")


def studies_in(runs: Path) -> list[str]:
    """Names of the studies in a folder; none where there is no such folder."""
    return sorted(file.parent.name for file in Path(runs).glob("*/study.json"))


def no_study(folder: StudyFolder, what: str = "study") -> str:
    """The sentence on a study that is not there, with those that are."""
    there = studies_in(folder.folder.parent)
    shown = ", ".join(there[:MOST_NAMED]) + (f" and {len(there) - MOST_NAMED} more" if len(there) > MOST_NAMED else "")
    beside = f"studies there: {shown}" if there else "there is none beside it"
    return f"there is no {what} in {folder.folder}; {beside}; another folder of studies is named with --runs"


def relative(path: Path) -> str:
    """A path as seen from here, if that is shorter."""
    return min(os.path.relpath(path), str(path), key=len)


class ResultsFolder(LaunchFolder):
    """What an inference leaves behind."""

    option = "--output_folder"

    @property
    def results(self) -> Results:
        """The results."""
        return Results(self.folder)

    def shard_lock(self, shard: int) -> FileLock:
        """Held by the worker that answers for the images of a shard."""
        return FileLock(self.locks / f"shard_{shard:04d}.lock")


class EvaluationFolder(LaunchFolder):
    """What the inferences of a study's checkpoints leave behind: a folder a trial, in it one an inference."""

    option = "--output_folder"

    @classmethod
    def of(cls, study: StudyFolder) -> "EvaluationFolder":
        """Where it is by default."""
        return cls(study.folder / "evaluation")

    @property
    def local_log(self) -> Path:
        """What inferences in the command's own process print."""
        return self.folder / "local.log"

    def results(self, number: int, infer_set: str, weights: str) -> Path:
        """The results folder of a trial's student or teacher on a list of images."""
        return place_of_trial(self.folder, number, f"trial_{number:04d}") / f"{infer_set}_{weights}"

    def all_results(self) -> list[Results]:
        """Those that are there, by trial."""
        trials = folders_of_trials(self.folder).values()
        return [Results(folder) for trial in trials for folder in sorted(trial.glob("*_*/"))]


class RunFolder(LaunchFolder):
    """One run on its own."""

    option = "--run_folder"

    @property
    def run(self) -> Run:
        """The run."""
        return Run(self.folder)

    def lock(self) -> FileLock:
        """Held by the worker that trains it."""
        return FileLock(self.locks / "run.lock")
