"""How a study stands: `fsr status --study NAME`, from its folder, its storage and the queue."""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # this checkout, whatever Python it is
    from fsr import beginning

    beginning.begin("status")

import gc
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from rich.console import Console

from fsr.command import parse_flags
from fsr.console import console as new_console
from fsr.errors import UserError, reports_user_errors
from fsr.exit_codes import ExitCode
from launch.show.live import on_console, show, watch_picture
from launch.show.messages import say
from launch.show.picture import Standing, worth
from launch.show.table import Row, Rows, best_of, damaged, left
from launch.show.trial_lines import wrapped
from launch.slurm import job_logs, job_reasons
from launch.slurm.answers import QueuedJob
from launch.slurm.job_reasons import summary, waits
from launch.slurm.queue import Queue
from launch.state.damage import naming_repair, repair_command
from launch.state.local import LocalWorkers
from launch.state.paths import StudyFolder, relative
from launch.state.retention import Retention
from launch.state.space import gigabytes
from launch.state.storage import load_launched
from launch.state.study_storage import counts_of
from launch.state.target import Target

WATCH_S = 5.0
MOST_LOGS = 8  # workers whose log is named


@dataclass(frozen=True, kw_only=True)
class Options:
    """Show the trials of a study, who works on them, and what it has cost.

    Examples:
        --study mask_ratio --watch
        --study mask_ratio --runs DIR --json
    """

    study: str
    """The study's name."""
    runs: Path = Path("runs")
    """Folder of all studies."""
    watch: bool = False
    """Draw it anew every few seconds, until all is done (exit code 0), or nobody works and nobody will (1)."""
    json: bool = False
    """One JSON object instead of a table."""


class Status:
    """Reads how a study stands, again and again."""

    def __init__(self, folder: StudyFolder) -> None:
        self.folder = folder
        self.study = load_launched(folder)
        self.definition = folder.definition()
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
        try:
            return Target.of(self.folder).trials
        except FileNotFoundError:
            return self.definition.get("target", 0)

    def is_reached(self) -> bool:
        """Whether all trials that are wanted are finished or pruned."""
        return counts_of(self.study).done >= self.target

    def rows(self) -> list[Row]:
        """The trials by number."""
        self.queue.jobs()  # a silent Slurm takes its time, in which trials would end between one row and the next
        return self._rows.read()

    def bytes(self, rows: Sequence[Row]) -> int:
        """Bytes of all runs, as each trial's summary told when it ended, less what was removed since."""
        return max(0, sum(row.bytes for row in rows) - Retention.of(self.folder).freed)

    def as_json(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        rows = self.rows()
        return {
            "study": self.folder.name,
            "target": self.target,
            "iterations": self.iterations,
            "queue": self.queue.states(),
            "jobs": self.jobs(),
            "silence": self.queue.silence,
            "logs": str(self.logs),
            "problem": self.problem(),
            "stopped": self.folder.stop_reason(),
            "local_workers": LocalWorkers.of(self.folder).alive,
            "gpu_hours": gpu_hours(rows),
            "bytes": self.bytes(rows),
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
                    "bytes": row.bytes,
                }
                for row in rows
            ],
        }

    @property
    def logs(self) -> Path:
        """Folder of the logs of the workers."""
        return self.folder.slurm if self.folder.slurm.exists() else self.folder.folder / "local"

    def jobs(self) -> list[dict[str, Any]] | None:
        """The jobs in the queue: state, Slurm's reason, whether it works or will, what mends it if not, its log."""
        jobs = self.queue.jobs()
        if jobs is None:
            return None
        return [
            {
                "job": job_id,
                "state": job.state,
                "reason": job.reason,
                "outlook": job_reasons.outlook(job).value,
                "remedy": job_reasons.remedy(job_reasons.outlook(job), [job_id]),
                "log": str(self.folder.job_log(job_id)),
            }
            for job_id, job in jobs.items()
        ]

    def log_lines(self, jobs: Mapping[str, QueuedJob]) -> list[str]:
        """Where the logs of the workers are; of some by name."""
        files = {job_id: relative(self.folder.job_log(job_id)) for job_id in list(jobs)[:MOST_LOGS]}
        named = [f"  {job_id}: {file}" for job_id, file in files.items()]
        more = [f"  … and {len(jobs) - MOST_LOGS} more"] if len(jobs) > MOST_LOGS else []
        return [f"logs of the workers: {relative(self.logs)}", *named, *more]

    def problem(self) -> list[str]:
        """Why nobody works although trials are missing; nothing where somebody does, or none is missing."""
        return [] if self.is_reached() else job_logs.why_nobody_works(self.folder, self.queue)

    def damage_lines(self, rows: Sequence[Row]) -> list[str]:
        """What cannot be read of damaged trials, and what restores it."""
        lines = damaged(rows)
        return [*lines, f"to restore what can be: {repair_command(self.folder)}"] if lines else []

    def standing(self) -> Standing:
        """How it stands now. What is left is told from the present rates of the running trials."""
        rows = self.rows()
        rates = [row.progress.steps_per_s or 0.0 for row in rows if row.state == "running"]
        steps = (self.target - sum(worth(row, self.iterations) for row in rows)) * self.iterations
        left_s = steps / sum(rates) if sum(rates) and steps > 0 else None
        return Standing(rows, self.iterations, self.target, left_s, best_of(rows), self._rows.log_of)

    def workers(self) -> list[str]:
        """Who works, in Slurm's queue and on this machine; and what keeps others from it."""
        jobs, lines = self.queue.jobs(), []
        if self.folder.slurm.exists():
            in_queue = f"unknown, Slurm does not answer: {self.queue.silence}" if jobs is None else summary(jobs)
            lines.append(f"Slurm's queue: {in_queue}")
        if (self.folder.folder / "local").exists():
            lines.append(f"workers of this machine: {LocalWorkers.of(self.folder)}")
        reason, problem = self.folder.stop_reason(), self.problem()
        why = reason or "a file stop is there, which the next sweep removes"
        stopped = [] if reason is None else [f"stopped: {why}"]
        stuck = [] if problem or not jobs else job_reasons.remedies(jobs)  # the problem has named them
        return [*stopped, *lines, *waits(jobs or {}), *stuck, *problem]

    def more(self, rows: Sequence[Row]) -> list[str]:
        """What it has cost, where the logs are, and what is to be known of code and damage."""
        hours = "  ".join(f"{name} {spent:.2f}" for name, spent in gpu_hours(rows).items())
        return [
            *self.log_lines(self.queue.jobs() or {}),
            f"hours of GPUs (or of ranks without one): {hours}",
            f"on the disk: {gigabytes(self.bytes(rows))} (--keep {Retention.of(self.folder).keep})",
            *code_lines(rows),
            *self.damage_lines(rows),
        ]

    def end(self) -> ExitCode | None:
        """The exit code of who watches, once there is nothing more to be seen; None while somebody works, or will.

        Raises UserError where the user has to mend what stopped the study.
        """
        if self.is_reached():
            return ExitCode.DONE
        if not self.queue.nobody_works() or LocalWorkers.of(self.folder).works:
            return None
        reason = self.folder.stop_reason()
        if reason:
            raise UserError(reason)
        return ExitCode.INCOMPLETE


def code_lines(rows: Sequence[Row]) -> list[str]:
    """Which trials were trained by which code version, where there are several: they may not be comparable."""
    versions = list(dict.fromkeys(version for row in rows for version in row.code))
    if len(versions) < 2:
        return []
    numbers = {version: [str(row.number) for row in rows if version in row.code] for version in versions}
    return [f"code version {version}: trials {', '.join(numbers[version])}" for version in versions]


def gpu_hours(rows: Sequence[Row]) -> dict[str, float]:
    """Rank-hours of all trials: useful, repeated after an interruption, lost in trials that failed."""
    names = ("useful", "repeated", "lost")
    return {name: round(sum(row.gpu_seconds.get(name, 0.0) for row in rows) / 3600, 4) for name in names}


@reports_user_errors
def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    options = parse_flags(Options, "status", arguments)
    folder = StudyFolder.in_runs(options.runs, options.study)
    with naming_repair(folder):
        status = Status(folder)
        if options.json:
            print(json.dumps(status.as_json()))
        elif options.watch:
            sys.exit(watch(status))
        else:
            tell(status, new_console())


def tell(status: Status, console: Console) -> None:
    """Print how the study stands, once."""
    standing = status.standing()
    show(standing, status.workers(), console)
    for line in status.more(standing.rows):
        if console.is_terminal:
            console.print(on_console(wrapped(line, console.width), console))
        else:
            say(console, line)


def watch(status: Status) -> ExitCode:
    """Show how the study stands until nothing more will come; in a file or a pipe it is told once, at the end."""
    console = new_console()
    try:
        if console.is_terminal:
            watch_picture(status.standing, console, lambda: status.end() is not None, status.workers, WATCH_S)
        while (end := status.end()) is None:
            time.sleep(WATCH_S)
    except KeyboardInterrupt:
        return ExitCode.DONE
    tell(status, console)
    if end is ExitCode.INCOMPLETE:
        say(console, "nobody works any more, and trials are missing: the same sweep command resumes them")
    return end


if __name__ == "__main__":
    gc.set_threshold(100_000, 50, 50)  # to look for circles of objects every 700 new ones takes a fifth of the time
    main()
