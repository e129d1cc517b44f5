"""The logs of a folder's jobs, and jobs that left without a trace of their work."""

import re
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fsr.json_file import UNREADABLE, read_json
from fsr.regular_file import open_regular
from fsr.run import Run
from launch.slurm import answers, commands, job_reasons
from launch.slurm.job_states import GONE
from launch.slurm.queue import Queue
from launch.state.attempts import AttemptLog
from launch.state.paths import LaunchFolder, folders_of_trials

LINES, LINE, END_OF_LOG = 15, 300, 16_384  # lines shown, characters of a line, bytes read
BEFORE_S = 3600.0  # that a worker's first sign may seem older than its submission, by whatever clocks
MOST = 5  # of the last such jobs are asked for
LOG = re.compile(r"(\d+_\d+)_\d+_log\.(out|err)")


def last_arrays(folder: LaunchFolder) -> list[str]:
    """Ids of the arrays of the last submission."""
    file = _arrays_file(folder)
    return read_json(file, list[str]) if file else []


def _arrays_file(folder: LaunchFolder) -> Path | None:
    return max(folder.slurm.glob("submission_????_arrays.json"), default=None)


@dataclass(frozen=True)
class Left:
    """Jobs that are gone and did no work, and what one of them has to say."""

    ids: list[str]
    state: str | None
    """What Slurm says of the last one."""
    log_file: Path | None
    """The log of the last one that wrote anything."""
    lines: list[str]
    """The end of that log."""

    def told(self) -> list[str]:
        """What a user should read of it, line by line."""
        which = f"job {self.ids[0]}" if len(self.ids) == 1 else f"{len(self.ids)} jobs ({', '.join(self.ids[:3])}, …)"
        says = f" (Slurm: {self.state})" if self.state else ""
        head = f"{which} left without any work to show{says}"
        if self.log_file is None:
            first = self.ids[-1].partition("_")[0]
            return [f"{head}, and without a log; sacct -j {first} and your administrators may know more"]
        return [f"{head}; the end of its log {self.log_file}:", *(f"  {line}" for line in self.lines)]


def why_nobody_works(folder: LaunchFolder, queue: Queue) -> list[str]:
    """What a user should know where no worker is left although there is work: line by line, without a cause none."""
    jobs = queue.jobs()
    if jobs is None or job_reasons.workers(jobs):
        return []
    file = _arrays_file(folder)
    since = file.stat().st_mtime - BEFORE_S if file else 0.0
    left = left_without_work(folder, last_arrays(folder), attempted(folder, since) | jobs.keys())
    told = [*job_reasons.remedies(jobs), *(left.told() if left else [])]
    return ["no worker is left, and work is missing", *told] if told else []


def attempted(folder: LaunchFolder, since: float) -> set[str]:
    """Ids of the jobs that made an attempt on the folder's run, or on any of its trials, since then (Unix time)."""
    jobs: set[str] = set()
    for run in (folder.folder, *folders_of_trials(folder.folder).values()):
        log = AttemptLog(Run(run))
        with suppress(*UNREADABLE):  # the trial's own row tells of it
            if log.file.stat().st_mtime >= since:
                jobs |= {attempt.job for attempt in log.attempts()}
    return jobs


def left_without_work(folder: LaunchFolder, arrays: Collection[str], seen: Collection[str]) -> Left | None:
    """The jobs of these arrays that are gone without an attempt; None if there are none, or if it is unknown.

    Args:
        folder: of the jobs.
        arrays: ids of job arrays.
        seen: ids of the jobs that made an attempt, or are in the queue.
    """
    places = [folder.slurm, *map(folder.array_logs, arrays)]
    files = [file for place in places for file in place.glob("*_log.*")]
    logs = {found[1] for file in files if (found := LOG.fullmatch(file.name))}
    logged = {job for job in logs if job.partition("_")[0] in arrays}
    silent = {f"{array}_0" for array in arrays if not any(job.startswith(f"{array}_") for job in (*logged, *seen))}
    ids = sorted((logged | silent) - set(seen), key=lambda job: [int(number) for number in job.split("_")])[-MOST:]
    states = {job: state_of(folder, job) for job in ids}
    ends = {job: end_of_log(folder, job) for job in ids}
    # A worker that finds nothing left to do ends well, and writes nothing; who cancels a job that waits knows of it.
    own = ("COMPLETED", "CANCELLED")
    ids = [job for job in ids if ends[job] or ((job in silent or states[job]) and states[job] not in own)]
    ids = [job for job in ids if states[job] != "COMPLETED"]
    if not ids:
        return None
    job = next((job for job in reversed(ids) if ends[job]), ids[-1])
    log_file, lines = ends[job] or (None, [])
    return Left(ids, states[job], log_file, lines)


def state_of(folder: LaunchFolder, job_id: str) -> str | None:
    """How a job ended, from the accounts or the controller, if either still knows."""
    past = commands.past_states(job_id, folder.identity)
    if past:
        return past[-1]
    job = commands.job(job_id, folder.identity)
    return None if job is None or job.state == GONE else job.state


def end_of_log(folder: LaunchFolder, job_id: str) -> tuple[Path, list[str]] | None:
    """The log of a job's errors, or else of its output, and its last lines; None if it wrote nothing."""
    errors = folder.job_log(job_id)
    for file in (errors, errors.with_suffix(".out")):
        lines = last_lines(file)
        if lines:
            return file, lines
    return None


def last_lines(file: Path) -> list[str]:
    """The last lines of a file as they can be shown: of a line drawn over and over the last state, escapes as text."""
    try:
        with open_regular(file) as log:
            size = log.seek(0, 2)
            log.seek(max(0, size - END_OF_LOG))
            text = log.read().decode("utf-8", "replace")
    except OSError:  # none, or none that can be read
        return []
    lines = [line.rstrip().rpartition("\r")[2] for line in text.split("\n")]
    return [answers.printable(line.replace("\t", "    "))[:LINE] for line in lines if line.strip()][-LINES:]
