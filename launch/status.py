"""How a study stands: `python launch/status.py --study NAME --runs DIR`, from its folder, its storage and the queue."""

import gc
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import tyro
from rich.console import Group
from rich.live import Live
from rich.text import Text

from fsr.console import console as new_console
from fsr.errors import reports_user_errors
from launch.show.table import Row, Rows, left, table
from launch.slurm.queue import Queue
from launch.state.paths import StudyFolder
from launch.state.storage import open_launched
from launch.state.target import Target
from launch.state.trials import best_trial

WATCH_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """Show the trials of a study, who works on them, and what it has cost."""

    study: str
    """The study's name."""
    runs: Path = Path("runs")
    """Folder of all studies."""
    watch: bool = False
    """Draw it anew every few seconds, until Ctrl-C."""
    json: bool = False
    """One JSON object instead of a table."""


class Status:
    """Reads how a study stands, again and again."""

    def __init__(self, folder: StudyFolder) -> None:
        self.folder = folder
        self.study = optuna.load_study(study_name=folder.name, storage=open_launched(folder))
        self.definition = json.loads(folder.study_file.read_text())
        self.queue = Queue(folder, on_slurm=folder.slurm.exists())
        self._rows = Rows(self.study, folder, self.queue.holds)

    @property
    def iterations(self) -> int:
        """Steps of a whole run."""
        iterations: int = self.definition["base"]["iterations"]
        return iterations

    @property
    def target(self) -> int:
        """Trials wanted in all."""
        return Target.of(self.folder).trials if self.folder.target_file.exists() else self.definition["target"]

    def rows(self) -> list[Row]:
        """The trials by number."""
        return self._rows.read()

    def as_json(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        rows = self.rows()
        return {
            "study": self.folder.name,
            "target": self.target,
            "iterations": self.iterations,
            "queue": self.queue.states(),
            "gpu_hours": gpu_hours(rows),
            "trials": [
                {
                    "number": row.number,
                    "state": row.state,
                    "value": row.value,
                    "parameters": row.parameters,
                    "step": row.progress.step,
                    "steps_per_s": row.progress.steps_per_s,
                    "scores": row.progress.scores,
                    "seconds": row.seconds,
                    "seconds_left": left(row, self.iterations),
                    "node": row.node,
                    "causes": row.causes,
                    "error": row.error,
                    "code": row.code,
                }
                for row in rows
            ],
        }

    def picture(self) -> Group:
        """Everything, to be looked at."""
        rows = self.rows()
        counts = {state: sum(row.state == state for row in rows) for state in sorted({row.state for row in rows})}
        trials = ", ".join(f"{number} {state}" for state, number in counts.items()) or "none yet"
        states = self.queue.states()
        in_queue = ", ".join(f"{number} {state.lower()}" for state, number in (states or {}).items()) or "no worker"
        if states is None:
            in_queue = "Slurm does not answer"
        hours = "  ".join(f"{name} {spent:.2f}" for name, spent in gpu_hours(rows).items())
        return Group(
            table(rows, self.iterations, best_trial(self.study.get_trials(deepcopy=False))),
            Text(f"{self.target} trials wanted: {trials}"),
            Text(f"Slurm's queue: {in_queue}"),
            Text(f"hours of GPUs (or of ranks without one): {hours}"),
            *(Text(line) for line in code_lines(rows)),
        )


def code_lines(rows: list[Row]) -> list[str]:
    """Which trials were trained by which code version, where there are several: they may not be comparable."""
    versions = list(dict.fromkeys(version for row in rows for version in row.code))
    if len(versions) < 2:
        return []
    numbers = {version: [str(row.number) for row in rows if version in row.code] for version in versions}
    return [f"code version {version}: trials {', '.join(numbers[version])}" for version in versions]


def gpu_hours(rows: list[Row]) -> dict[str, float]:
    """Rank-hours of all trials: useful, repeated after an interruption, lost in trials that failed."""
    names = ("useful", "repeated", "lost")
    return {name: round(sum(row.gpu_seconds.get(name, 0.0) for row in rows) / 3600, 4) for name in names}


@reports_user_errors
def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    options = tyro.cli(Options, args=arguments)
    status = Status(StudyFolder.in_runs(options.runs, options.study))
    if options.json:
        print(json.dumps(status.as_json()))
        return
    console = new_console()
    if not options.watch:
        console.print(status.picture())
        return
    try:
        with Live(status.picture(), console=console, auto_refresh=False) as live:
            while True:
                time.sleep(WATCH_S)
                live.update(status.picture(), refresh=True)
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    gc.set_threshold(100_000, 50, 50)  # to look for circles of objects every 700 new ones takes a fifth of the time
    main()
