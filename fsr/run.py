"""The folder of one run: every path and file in it, named once. Imports no torch."""

import json
import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from fsr.config import PLACES, TrainConfig
from fsr.errors import UserError
from fsr.files import write_atomically, write_json
from fsr.records import read_records

CODE_VERSION_FILE = "code_version.json"  # beside the packages of a snapshot


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

    def check(self, config: TrainConfig) -> None:
        """Raise UserError if the folder belongs to a run with other settings; where the data lies may differ."""
        if not self.config_file.exists():
            return
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
        self.folder.mkdir(parents=True, exist_ok=True)
        new = not self.config_file.exists()
        if new:
            write_json(self.config_file, config.to_json())

        for unfinished in self.folder.glob(".*.[0-9]*"):  # temporary files of killed processes
            unfinished.unlink()
        return new

    def release(self) -> None:
        """Let the folder belong to no configuration again: it was new, and nothing was trained in it."""
        # The configuration goes last: without it, a checkpoint could be resumed with other settings.
        for file in (self.checkpoint_file, self.previous_checkpoint_file, self.config_file):
            file.unlink(missing_ok=True)

    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint to resume from."""
        return self.checkpoint_file.exists() or self.previous_checkpoint_file.exists()

    def config(self) -> TrainConfig:
        """The configuration that this run was started with."""
        fields: dict[str, Any] = json.loads(self.config_file.read_text())
        starts = self.starts()
        if "ranks" not in fields and starts:  # of version 0.1.0: the processes of its first start made the global batch
            fields["ranks"] = int(starts[0]["device"].split(" × ")[0]) * fields.pop("accumulate", 1)
        return TrainConfig.from_json(fields)

    def result(self) -> dict[str, Any] | None:
        """Final scores, or None while the run is not finished."""
        return json.loads(self.result_file.read_text()) if self.result_file.exists() else None

    def metrics(self) -> list[dict[str, Any]]:
        """All whole records of metrics.jsonl, oldest first; raises UserError if one is damaged."""
        records, problems = read_records(self.metrics_file)
        if problems:
            raise UserError(f"the records of run folder {self.folder} are damaged: {problems[0]}")
        return records

    def log(self, record: dict[str, Any]) -> None:
        """Append one record to metrics.jsonl."""
        with open(self.metrics_file, "a") as file:
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
        """What provenance.json says of each start, oldest first."""
        if not self.provenance_file.exists():
            return []
        attempts: list[dict[str, Any]] = json.loads(self.provenance_file.read_text())["attempts"]
        return attempts


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
        said: dict[str, Any] = json.loads(snapshot.read_text())
        return said

    def git(*arguments: str) -> str | None:
        try:
            answer = subprocess.run(["git", "-C", str(tree), *arguments], capture_output=True, text=True)
        except FileNotFoundError:
            return None
        return answer.stdout.strip() if answer.returncode == 0 else None

    commit, changes = git("rev-parse", "HEAD"), git("status", "--porcelain")
    return {"git_commit": commit, "git_dirty": None if changes is None else bool(changes)}
