"""Submits workers to Slurm: one job array, as large as what is missing and what is not there yet."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from fsr.config import TrainConfig
from fsr.errors import UserError
from fsr.files import look_again, make_folder, write_json
from fsr.inference.config import InferConfig
from launch.show.messages import say
from launch.slurm import bad_nodes, batch_script, commands, job_reasons
from launch.slurm.answers import Limit, QueuedJob
from launch.slurm.limits import array_size
from launch.slurm.queue import Queue
from launch.slurm.resources import Resources
from launch.state.code_snapshot import listed
from launch.state.paths import LaunchFolder
from launch.worker.job_spec import JobSpec
from launch.worker.rendezvous import forget_old_jobs

SPECS = "submission_????.json"
LATER = "try again later"
LARGE_SHARE = 0.1  # of all jobs that a cluster can have
FEW_WORKERS, FEW_ENTRIES = 100, 1000  # whose logs may lie together, in a folder with no more than this
UNKNOWN = "????????????"  # in the place of what only a submission makes


@dataclass(frozen=True)
class Submission:
    """The workers that are missing, and how they would be started."""

    sizes: list[int]
    """Workers of each array: one array, unless the cluster's limits demand more."""
    live: int
    """Workers that were there already, and work or will."""
    exclude: list[str]
    """Nodes that are left out."""
    notes: list[str]
    """What the user should know of it."""
    limits: Sequence[tuple[Limit, int]] = ()
    """The limits on jobs in the queue, each with the jobs that count for it."""
    logs_apart: bool = False
    """Whether each array gets a folder for its logs: else those of all lie together."""

    @property
    def workers(self) -> int:
        """Workers that it starts."""
        return sum(self.sizes)


def prepare(folder: LaunchFolder, workers: int, resources: Resources) -> Submission:
    """Work out what to submit so that there are `workers`. Raises UserError if it cannot be done."""
    batch_script.check_path(folder.folder)
    queue = Queue(folder, on_slurm=True)
    jobs = queue.jobs()
    if jobs is None:
        raise UserError(f"squeue does not answer, so it is unknown which workers are there: {queue.silence}; {LATER}")
    live = workers_among(jobs, resources)
    missing, notes = max(0, workers - len(live)), commands.notes()
    notes.extend(job_reasons.remedies({job_id: job for job_id, job in jobs.items() if job_id not in live}))
    settings = commands.settings()
    found, missing = within_limits(missing, resources, settings, notes)
    size = array_size(settings)
    if size is None:
        raise UserError(f"Slurm does not answer: `scontrol show config` names no MaxArraySize; {LATER}")
    sizes = [min(size[0], missing - start) for start in range(0, missing, size[0])]
    exclude = bad_nodes.to_exclude(folder, commands.partition_nodes(resources.partition))
    if exclude:
        notes.append(f"trials died of broken hardware there, so these nodes are left out: {', '.join(exclude)}")
    entries = len(os.listdir(folder.slurm)) if folder.slurm.is_dir() else 0
    apart = max(sizes, default=0) > FEW_WORKERS or entries > FEW_ENTRIES
    return Submission(sizes, len(live), exclude, notes, found, apart)


def workers_among(jobs: Mapping[str, QueuedJob], resources: Resources) -> dict[str, QueuedJob]:
    """The jobs that will do their work; with `--sbatch hold`, also those that wait for their user to release them."""
    held = {job_id: job for job_id, job in jobs.items() if job.reason == "JobHeldUser"}
    return job_reasons.workers(jobs) | (held if "hold" in resources.sbatch_options() else {})


def within_limits(
    missing: int, resources: Resources, settings: Mapping[str, str], notes: list[str]
) -> tuple[list[tuple[Limit, int]], int]:
    """The limits on jobs in the queue, each with the jobs that count for it; and how many of the missing workers they
    let in. A note says what holds the others back."""
    limits, found = commands.submit_limits(resources.account, resources.partition, resources.qos), []
    if limits is None:
        notes.append("the accounts do not answer (sacctmgr), so it is unknown how many jobs you may have in the queue")
    everybody = commands.cluster_limit(settings)
    # To count everybody's jobs is a large question, and few workers do not matter among them.
    large = everybody is not None and missing > everybody.number * LARGE_SHARE
    for limit in [*(limits or []), *([everybody] if everybody and large else [])]:
        there = commands.jobs_that_count(limit)
        if there is None:
            raise UserError(f"Slurm does not answer: squeue does not list the jobs of {limit.whose}; {LATER}")
        found.append((limit, there))
        room = max(0, limit.number - there)
        if missing > room:
            named = f" ({limit.name}); the same command later starts the others" if limit.name else ""
            starts = f"{room} workers are started, not {missing}{named}"
            notes.append(f"{limit.whose} may have {limit.number} jobs in the queue: {starts}")
            missing = room
    return found, missing


def scripts(
    submission: Submission,
    folder: LaunchFolder,
    resources: Resources,
    config: TrainConfig | InferConfig,
    code: str | None = None,
    spec_file: Path | None = None,
) -> list[str]:
    """The batch scripts of a submission; without code version and job spec as a dry run shows them."""
    snapshot = folder.code.snapshot(code or UNKNOWN)
    spec_file = spec_file or folder.slurm / "submission_????.json"
    apart = submission.logs_apart
    of_size = {
        size: batch_script.script(size, folder, snapshot, spec_file, resources, config, submission.exclude, apart)
        for size in set(submission.sizes)
    }
    return [of_size[size] for size in submission.sizes]


def choose_code(folder: LaunchFolder, renew: bool, redefined: str, console: Console) -> str:
    """The code version that workers are to run; says where the checkout differs from it. The sweep lock must be held.

    `redefined` tells what else differs with the code.
    """
    changed, taken = folder.code.differences(), folder.code.versions()
    version = folder.code.take(renew)
    if taken and version != taken[-1]:
        say(console, f"new code version {version} (before: {taken[-1]}); changed: {listed(changed)}")
    elif changed:
        what = f"the checkout differs from the code version {version} in {listed(changed)}{redefined}"
        say(console, f"note: {what}; workers run that version; --renew_code takes the checkout's")
    return version


def submit(submission: Submission, spec: JobSpec, resources: Resources, config: TrainConfig | InferConfig) -> list[str]:
    """Submit it; returns the ids of the arrays. All that the jobs need lies in the folder before.

    The job spec is a file of this submission alone, so jobs in the queue keep the one that they were submitted with.
    Where Slurm refuses an array because of its number of jobs, by a limit that nobody was told of, smaller ones are
    tried. `submission` then has what was submitted, and a note. The sweep lock must be held. Raises UserError with
    Slurm's words if it refuses all.
    """
    folder = spec.launch_folder()
    folder.forget_mistakes()
    if not submission.sizes:
        return []
    folder.identify()
    forget_old_jobs(folder.locks)
    spec_file = next_spec_file(folder.slurm)
    spec.write(spec_file)
    ids: list[str] = []
    waiting, done, refused = submission.sizes[::-1], [], None
    while waiting:
        size = waiting.pop()
        (text,) = scripts(replace(submission, sizes=[size]), folder, resources, config, spec.code, spec_file)
        try:
            ids.append(batch_script.sbatch(text, spec_file.with_name(f"{spec_file.stem}_{len(ids)}.sh")))
        except UserError as error:
            refused = error
            halves = batch_script.is_too_many(error) and size > 1
            waiting = [size - size // 2, size // 2] if halves else []  # all else is too many, too
            continue
        done.append(size)
        if submission.logs_apart:  # the first job may have made it, but knows no modes
            make_folder(folder.array_logs(ids[-1]))
        write_json(spec_file.with_name(f"{spec_file.stem}_arrays.json"), ids)
    if refused and not ids:
        raise refused
    if refused:
        submission.notes.append(
            f"{sum(done)} workers are started, not {submission.workers}, and the same command later starts the others: "
            f"{refused}"
        )
        submission.sizes[:] = done
    return ids


def next_spec_file(folder: Path) -> Path:
    """A job spec's file that no submission has used yet. The sweep lock must be held."""
    look_again(folder)  # another login node may just have submitted
    last = max(folder.glob(SPECS), default=None)
    number = int(last.stem.removeprefix("submission_")) + 1 if last else 1
    return folder / f"submission_{number:04d}.json"


def last_spec(folder: Path) -> JobSpec | None:
    """The job spec of the last submission; None before the first."""
    last = max(folder.glob(SPECS), default=None)
    return JobSpec.read(last) if last else None
