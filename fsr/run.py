"""The folder of one run: every path and file in it, named once. Imports no torch."""

import itertools
import json
import os
import platform
import subprocess
import sys
import time
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from typing_extensions import NotRequired, TypedDict

from fsr.config import PLACES, TrainConfig
from fsr.errors import UserError
from fsr.files import (
    is_unfinished_by_others,
    make_folder,
    naming,
    open_file,
    remove_abandoned,
    write_atomically,
    write_json,
)
from fsr.json_file import DamagedError, parse_json, read_json, read_whole
from fsr.records import Result, check_values, read_records
from fsr.system_errors import disk_is_full, no_right

REMOVED_FILE = "removed.json"
CODE_VERSION_FILE = "code_version.json"  # beside the packages of a snapshot


class Start(TypedDict):
    """What provenance.json says of one start: what a later one needs of it; the rest is for people."""

    pid: int
    host: str
    first_step: int
    device: NotRequired[str]


class Provenance(TypedDict):
    """What provenance.json holds."""

    attempts: list[dict[str, Any]]


class Starts(TypedDict):
    """The same, with what every start has."""

    attempts: list[Start]


class Removed(TypedDict):
    """What removed.json says: why weights were removed, and the bytes of each file by its name."""

    why: str
    bytes: dict[str, int]


class SnapshotOrigin(TypedDict):
    """What a snapshot of the code says of itself."""

    version: str
    git_commit: NotRequired[str | None]
    git_dirty: NotRequired[bool | None]


class Run:
    """One run folder: config, provenance, metrics, quality, result, checkpoints; TensorBoard's events beside them."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.config_file = self.folder / "config.json"
        self.provenance_file = self.folder / "provenance.json"
        self.metrics_file = self.folder / "metrics.jsonl"
        self.quality_file = self.folder / "quality.json"
        self.result_file = self.folder / "result.json"
        self.checkpoint_file = self.folder / "checkpoint.pt"
        self.previous_checkpoint_file = self.folder / "checkpoint.previous.pt"
        self.best_file = self.folder / "best.pt"
        self.removed_file = self.folder / REMOVED_FILE
        self.lock_file = self.folder / "training.lock"

    def check(self, config: TrainConfig) -> None:
        """Raise UserError if the folder belongs to a run with other settings; where the data lies may differ.

        So does one whose checkpoints were removed before its last step: it would start anew over its own records.
        """
        if not self.config_file.exists():
            there = [file for file in (self.result_file, *self.checkpoint_files()) if os.path.lexists(file)]
            if there:
                raise UserError(
                    f"{there[0]} is there without {self.config_file.name}, so nothing tells of which run it is"
                )
            return
        if self.removed_file.exists() and not self.has_checkpoint() and not self.result_file.exists():
            raise UserError(f"{missing_checkpoint(self.checkpoint_file)}; it cannot be resumed")
        before, now = self.config().to_json(), config.to_json()
        changed = [name for name in now if before[name] != now[name] and name not in PLACES]
        if changed:
            name = changed[0]
            raise UserError(
                f"run folder {self.folder} holds a run with {name} {before[name]}, not {now[name]}; "
                "choose another --run_folder or the same settings"
            )

    def start(self, config: TrainConfig) -> bool:
        """Let the folder belong to this configuration, and say whether it did not yet. Raises UserError as `check`."""
        self.check(config)
        make_folder(self.folder)
        new = not self.config_file.exists()
        if new:
            write_json(self.config_file, config.to_json())
        remove_abandoned(self.folder)
        return new

    def release(self) -> None:
        """Let the folder belong to no configuration again: it was new, and nothing was trained in it."""
        # The configuration goes last: without it, a checkpoint could be resumed with other settings.
        for file in (self.checkpoint_file, self.previous_checkpoint_file, self.config_file):
            file.unlink(missing_ok=True)

    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint to resume from."""
        return any(map(os.path.lexists, self.checkpoint_files()))

    def checkpoint_files(self) -> tuple[Path, Path]:
        """The two checkpoints, the newer one first."""
        return self.checkpoint_file, self.previous_checkpoint_file

    def set_aside(self, checkpoint: Path) -> Path:
        """Give a damaged checkpoint a name that nothing loads, and return it."""
        names = (self.folder / f"checkpoint.damaged_{number}.pt" for number in itertools.count(1))
        aside = next(name for name in names if not os.path.lexists(name))
        os.replace(checkpoint, aside)
        return aside

    def weight_files(self, best: bool) -> list[Path]:
        """The files of weights that are there: checkpoints, also damaged or unfinished ones; if wanted, best.pt."""
        weights = [*self.checkpoint_files(), self.best_file]
        parts = [part for file in weights for part in self.folder.glob(f".{file.name}.*.part")]
        unfinished = [part for part in parts if is_unfinished_by_others(part)]
        damaged = self.folder.glob("checkpoint.damaged_*.pt")
        files = (*self.checkpoint_files(), *damaged, *unfinished, *([self.best_file] if best else []))
        return [file for file in files if file.is_file()]

    def remove_weights(self, best: bool, why: str) -> int:
        """Remove checkpoints, and `best.pt` if wanted; the bytes that this frees. The run must have ended for good.

        `removed.json` tells what was removed, and why, before it is: after a crash the same call does the rest.
        """
        sizes = {file: file.stat().st_size for file in self.weight_files(best)}
        if sizes:
            removed = {"why": why, "bytes": self._removed() | {file.name: size for file, size in sizes.items()}}
            try:
                write_json(self.removed_file, removed)
            except OSError as error:
                if not disk_is_full(error):
                    raise
                self.previous_checkpoint_file.unlink(missing_ok=True)  # makes room for the record
                write_json(self.removed_file, removed)
        for file in sizes:
            file.unlink(missing_ok=True)
        return sum(sizes.values())

    def bytes(self) -> int:
        """Bytes of all its files."""
        total = 0
        for file in self.folder.iterdir() if self.folder.exists() else ():
            with suppress(FileNotFoundError):  # one that was being written, and is in its place now
                total += file.stat().st_size if file.is_file() else 0
        return total

    def _removed(self) -> dict[str, int]:
        """Bytes of each file that was removed before, by its name."""
        try:
            return read_json(self.removed_file, Removed)["bytes"]
        except FileNotFoundError:
            return {}

    def config(self) -> TrainConfig:
        """The configuration that this run was started with. Raises FileNotFoundError, DamagedError."""
        fields = read_json(self.config_file, dict[str, Any])
        starts = self.starts()
        if "ranks" not in fields and starts:  # of version 0.1.0: the processes of its first start made the global batch
            fields["ranks"] = int(starts[0]["device"].split(" × ")[0]) * fields.pop("accumulate", 1)
        try:
            return TrainConfig.from_json(fields)
        except (UserError, TypeError, ValueError, OverflowError) as error:
            wrong = str(error).partition("; allowed: ")[0]
            raise DamagedError(f"{self.config_file} is damaged: {wrong}") from error

    def result(self) -> Result | None:
        """Final scores, or None while the run is not finished. Raises DamagedError."""
        try:
            result = read_json(self.result_file, dict[str, Any])
        except FileNotFoundError:
            return None
        wrong = check_values({name: value for name, value in result.items() if value is not None})
        if wrong:
            raise DamagedError(f"{self.result_file} is damaged: {wrong}")
        return result

    def metrics(self) -> list[dict[str, Any]]:
        """All whole records of metrics.jsonl, oldest first; raises DamagedError if one is damaged."""
        records, problems = read_records(self.metrics_file)
        if problems:
            raise DamagedError(f"the records of run folder {self.folder} are damaged: {problems[0]}")
        return records

    def log(self, record: dict[str, Any]) -> None:
        """Append one record to metrics.jsonl."""
        with naming(self.metrics_file), open_file(self.metrics_file, "a") as file:
            file.write(json.dumps(record) + "\n")

    def rewind(self, step: int) -> None:
        """Remove the records after `step`, which the resumed run will write again."""
        kept = [record for record in self.metrics() if record["step"] <= step]
        write_atomically(self.metrics_file, "".join(json.dumps(record) + "\n" for record in kept).encode())

    def record_attempt(self, device: str, precision: str, first_step: int) -> None:
        """Add this start (host, versions, commit, command, what computes and how) to provenance.json."""
        start = provenance() | {"device": device, "precision": precision, "first_step": first_step}
        write_json(self.provenance_file, {"attempts": [*self.starts(), start]})

    def starts(self) -> list[dict[str, Any]]:
        """What provenance.json says of each start, oldest first. Raises DamagedError."""
        place = self.provenance_file
        try:
            content = read_whole(place)
        except FileNotFoundError:
            return []
        parse_json(content, Starts, str(place), newer=True)
        return parse_json(content, Provenance, str(place))["attempts"]


def missing_checkpoint(path: Path) -> str:
    """That there is no checkpoint, and why, where the run's folder tells it; or that this user may not look."""
    try:
        path.lstat()
    except PermissionError:
        return no_right(path, "name another checkpoint")
    except OSError:
        pass
    try:
        removed = read_json(path.parent / REMOVED_FILE, Removed)
    except FileNotFoundError:
        removed = Removed(why="", bytes={})
    if path.name not in removed["bytes"]:
        return f"checkpoint {path} does not exist"
    best = path.with_name("best.pt")
    left = f"; {best} is there" if best.exists() else ""
    return f"checkpoint {path} was removed when its run had ended ({removed['why']}){left}"


def provenance() -> dict[str, Any]:
    """Where this process runs: commit and dirty flag, versions, host, command, time (UTC)."""
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": sys.argv,
        "host": platform.node(),
        "pid": os.getpid(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in ("torch", "torchvision", "timm", "numpy", "pillow")},
        **git_state(),
    }


def git_state() -> dict[str, Any]:
    """Commit of the source tree and whether it has uncommitted changes; None where it is not a git checkout.

    A snapshot of the code says what it was taken from: it may lie in a checkout that has changed since.
    """
    tree = Path(__file__).resolve().parent.parent
    snapshot = tree / CODE_VERSION_FILE
    if snapshot.exists():
        return dict(read_json(snapshot, SnapshotOrigin, newer=True))

    def git(*arguments: str) -> str | None:
        try:
            answer = subprocess.run(["git", "-C", str(tree), *arguments], capture_output=True, text=True)
        except FileNotFoundError:
            return None
        return answer.stdout.strip() if answer.returncode == 0 else None

    commit, changes = git("rev-parse", "HEAD"), git("status", "--porcelain")
    return {"git_commit": commit, "git_dirty": None if changes is None else bool(changes)}
