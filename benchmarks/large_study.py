"""What a study of 100 to 100 000 ended trials costs those who work on it: CPU seconds and memory.

    python benchmarks/large_study.py
    python benchmarks/large_study.py --trials 100 1000 10000 --postgresql
    PYTHONPATH=OTHER_CHECKOUT python benchmarks/large_study.py --out after.json

The study is written by finished_study.py, each step is a process of storage_steps.py. A first worker, which is not
measured among the others, meets the study as it was written; the others meet what it leaves.

- open: the storage, and the study in it: what a worker does before its first claim
- claim, tell, evaluation (a score reported, the pruner asked): medians of a worker's calls after its first
- under locks: of a call, while the claim's or the journal's lock is held, for which all other workers wait
- status, sweep: `fsr status --json`, `fsr sweep` that finds nothing to do: whole commands, imports included
- load: `analysis.load.load`, the first time and again. Only the first trials have run folders (--run_folders)

Memory is the most that the process ever had; "more" than with its imports alone.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import tyro
from finished_study import write_study
from postgresql import Server

from launch.state.paths import TRIAL
from launch.state.storage import STORAGE_VARIABLE

HERE = Path(__file__).resolve().parent
COLUMNS: dict[str, tuple[str, str, float]] = {
    "open, s": ("open", "cpu_s", 1),
    "claim, ms": ("claim", "cpu_s", 1e3),
    "under locks, ms": ("claim", "lock_cpu_s", 1e3),
    "tell, ms": ("tell", "cpu_s", 1e3),
    "evaluation, ms": ("evaluation", "cpu_s", 1e3),
    "worker, MB": ("tell", "mb", 1),
    "more, MB": ("tell", "more_mb", 1),
    "status, s": ("status", "cpu_s", 1),
    "status, MB": ("status", "mb", 1),
    "sweep, s": ("sweep", "cpu_s", 1),
    "sweep, MB": ("sweep", "mb", 1),
    "load, s": ("load", "cpu_s", 1),
    "load, MB": ("load", "mb", 1),
    "again, s": ("load again", "cpu_s", 1),
    "storage, MB": ("storage", "mb", 1),
}


@dataclass(frozen=True)
class Options:
    """Measure studies of several sizes."""

    trials: tuple[int, ...] = (100, 1_000, 10_000, 100_000)
    """Ended trials."""
    run_folders: int = 1_000
    """So many trials have run folders, which load reads."""
    claims: int = 9
    """Trials of a measured worker after its first."""
    steps: tuple[str, ...] = ("worker", "status", "sweep", "load")
    """What is measured."""
    storage: str | None = None
    """`sqlite` for a file of SQLite instead of the journal."""
    postgresql: bool = False
    """A private server of PostgreSQL instead of the journal (Debian's postgresql; as root)."""
    folder: Path | None = None
    """Where the studies are written, and removed again; by default the system's temporary folder."""
    out: Path | None = None
    """JSON of all figures."""


def measure(trials: int, options: Options, server: Server | None) -> dict[str, Any]:
    """All figures of a study of so many trials."""
    folder = Path(tempfile.mkdtemp(prefix="large_study_", dir=options.folder))
    try:
        url = server.new_database() if server else f"sqlite:///{folder}/study.db" if options.storage else None
        variables = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")} | ({STORAGE_VARIABLE: url} if url else {})
        os.environ.pop(STORAGE_VARIABLE, None)
        if url:
            os.environ[STORAGE_VARIABLE] = url
        made = write_study(folder / "runs", trials, options.run_folders, url)

        def step(name: str) -> dict[str, Any]:
            command = [sys.executable, HERE / "storage_steps.py", name, made.folder.folder]
            command += ["database" if url else "journal", *([str(options.claims)] if name == "worker" else [])]
            answer = subprocess.run(command, env=variables, stdout=subprocess.PIPE, text=True, check=True)
            found = json.loads(answer.stdout.splitlines()[-1])
            print(json.dumps({"trials": trials} | found), flush=True)  # who waits for the rest sees these
            return found

        figures: dict[str, Any] = {"trials": trials, "written": {"mb": stored_mb(made.folder.folder)}}
        figures["first worker"] = step("worker")
        for name in options.steps:
            figures |= step(name)
        for name in ("open", "first claim", "claim", "tell"):
            figures[name]["more_mb"] = round(figures[name]["mb"] - figures["imports"]["mb"], 1)
        return figures | {"storage": {"mb": server.megabytes(url) if server else stored_mb(made.folder.folder)}}
    finally:
        shutil.rmtree(folder)


def stored_mb(folder: Path) -> float:
    """Megabytes of the study's storage: all files of its folder but code, locks and runs; and SQLite's file."""
    others = [
        place for place in folder.iterdir() if place.name not in ("code", "locks") and not TRIAL.fullmatch(place.name)
    ]
    files = [file for place in others for file in (place, *place.rglob("*")) if file.is_file()]
    files += folder.parent.parent.glob("study.db")
    return round(sum(file.stat().st_size for file in files) / 1e6, 1)


def table(rows: list[dict[str, Any]]) -> str:
    """The figures in Markdown, a size a row."""
    columns = {title: of for title, of in COLUMNS.items() if of[0] in rows[0]}
    lines = [["trials", *columns], ["---"] * (1 + len(columns))]
    for row in rows:
        lines.append(
            [
                f"{row['trials']:,}".replace(",", " "),
                *(shown(row[name][of] * unit) for name, of, unit in columns.values()),
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shown(value: float) -> str:
    """A figure to three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def main() -> None:
    """Measure and print."""
    options = tyro.cli(Options)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rows = []
    with Server() if options.postgresql else nullcontext() as server:
        for trials in options.trials:
            rows.append(measure(trials, options, server))
    print(table(rows))
    from machine import machine

    result = {"storage": "postgresql" if options.postgresql else options.storage or "journal"} | machine()
    if options.out:
        options.out.write_text(json.dumps(result | {"rows": rows}, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
