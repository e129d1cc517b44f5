"""What the files of a large study cost: how many lie in one folder, and what it takes to list and to remove them.

    python benchmarks/study_files.py --trials 1000 10000 100000

Each trial gets the files of a finished one without weights, of the sizes that a run of the study smoke leaves, in the
places that `StudyFolder` names; its event file is empty. CPU seconds, and wall-clock seconds in brackets.
"""

import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from launch.state.paths import StudyFolder

SIZES = {
    "attempts.json": 269,
    "config.json": 2049,
    "events.out.tfevents.1764057600.n1.1.0": 0,
    "events.out.tfevents.hparams": 583,
    "metrics.jsonl": 3301,
    "provenance.json": 707,
    "quality.json": 12503,
    "removed.json": 138,
    "result.json": 869,
    "training.lock": 8,
    "trial.json": 187,
}


@dataclass(frozen=True)
class Options:
    """Measure studies of several sizes."""

    trials: tuple[int, ...] = (1_000, 10_000)
    """Trials of each study."""
    place: Path | None = None
    """Folder to write them in; by default the system's for temporary files."""


def write_files(folder: StudyFolder, trials: int) -> None:
    """The files of so many trials."""
    for number in range(trials):
        run, lock = folder.run(number).folder, folder.trial_lock(number).path
        run.mkdir(parents=True)
        lock.parent.mkdir(parents=True, exist_ok=True)
        write(lock, 12)
        for name, size in SIZES.items():
            write(run / name, size)


def write(file: Path, size: int) -> None:
    """A file of so many bytes."""
    number = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    os.write(number, bytes(size))
    os.close(number)


def timed(work: Callable[[], Any]) -> str:
    """CPU and wall-clock seconds."""
    cpu, wall = time.process_time(), time.monotonic()
    work()
    return f"{time.process_time() - cpu:.3f} ({time.monotonic() - wall:.1f})"


def main() -> None:
    """Print a line a study."""
    options = tyro.cli(Options)
    print("| trials | files | folders | largest folder | list the trials | find those after the last | remove |")
    print("|---|---|---|---|---|---|---|")
    for trials in options.trials:
        with tempfile.TemporaryDirectory(dir=options.place) as place:
            folder = StudyFolder(Path(place) / "study")
            write_files(folder, trials)
            entries: Counter[str] = Counter()
            files = 0
            for path, folders, names in os.walk(folder.folder):
                entries[path] = len(folders) + len(names)
                files += len(names)
            listed, after = timed(folder.trial_folders), timed(lambda: folder.trial_folders(first=trials))  # noqa: B023
            removed = timed(lambda: shutil.rmtree(folder.folder))  # noqa: B023
            cells = (trials, files, len(entries), max(entries.values()), listed, after, removed)
            print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
