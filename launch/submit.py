"""Submits workers to Slurm: one job array, as large as what is missing and what is not there yet."""

import time
from dataclasses import dataclass
from typing import Literal

from fsr.config import TrainConfig
from fsr.errors import UserError
from fsr.inference.config import InferConfig
from launch import code_snapshot
from launch.slurm import bad_nodes, batch_script, commands
from launch.slurm.queue import Queue
from launch.slurm.resources import Resources
from launch.state.paths import LaunchFolder
from launch.worker.job_spec import JobSpec


@dataclass(frozen=True)
class Submission:
    """What would be, or was, submitted."""

    scripts: list[str]
    """Batch scripts: one array, unless the cluster's limits demand more."""
    workers: int
    """Workers that they start."""
    live: int
    """Workers that were there already."""
    notes: list[str]
    """What the user should know of it."""


def prepare(folder: LaunchFolder, workers: int, resources: Resources, config: TrainConfig | InferConfig) -> Submission:
    """Work out what to submit so that there are `workers`. Raises UserError if Slurm does not answer."""
    jobs = Queue(folder, on_slurm=True).jobs()
    if jobs is None:
        raise UserError("squeue does not answer, so it is unknown which workers are there; try again later")
    missing, notes = max(0, workers - len(jobs)), commands.notes()
    limit = commands.submit_limit()
    room = missing if limit is None else max(0, limit - commands.own_jobs())
    if missing > room:
        notes.append(f"your account may have {limit} jobs in the queue: {room} workers are started, not {missing}")
        missing = room
    largest = int(commands.settings().get("MaxArraySize", 1001))
    sizes = [min(largest, missing - start) for start in range(0, missing, largest)]
    exclude = bad_nodes.to_exclude(folder, commands.partition_nodes(resources.partition))
    if exclude:
        notes.append(f"trials died of broken hardware there, so these nodes are left out: {', '.join(exclude)}")
    scripts = [batch_script.script(f"fsr-{folder.name}", size, folder, resources, config, exclude) for size in sizes]
    return Submission(scripts, missing, len(jobs), notes)


def submit(
    submission: Submission,
    kind: Literal["study", "run", "inference"],
    folder: LaunchFolder,
    config: TrainConfig | InferConfig,
    database: bool = False,
) -> list[str]:
    """Submit it; returns the ids of the arrays. All that the jobs need lies in the folder before."""
    code_snapshot.take(folder.code)
    spec = JobSpec(kind=kind, folder=str(folder.folder), config=config.to_json(), database=database)
    spec.write(folder.job_spec_file)
    folder.forget_mistakes()
    stamp = time.strftime("%Y%m%d_%H%M%S")
    files = [folder.slurm / f"submission_{stamp}_{index}.sh" for index in range(len(submission.scripts))]
    return [batch_script.sbatch(text, file) for text, file in zip(submission.scripts, files, strict=True)]
