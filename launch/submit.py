"""Submits workers to Slurm: one array, as large as what is missing and what is not there yet."""

import time
from collections.abc import Callable
from dataclasses import dataclass

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
    warnings: list[str]


def prepare(folder: LaunchFolder, workers: int, resources: Resources, config: TrainConfig | InferConfig) -> Submission:
    """Work out what to submit so that there are `workers`. Raises UserError if Slurm does not answer."""
    tasks = Queue(folder, on_slurm=True).tasks()
    if tasks is None:
        raise UserError("squeue does not answer, so it is unknown which workers are there; try again later")
    wanted, warnings = max(0, workers - len(tasks)), []
    limit = commands.submit_limit()
    room = wanted if limit is None else max(0, limit - commands.own_jobs())
    if wanted > room:
        warnings.append(f"your account may have {limit} jobs in the queue: {room} workers are started, not {wanted}")
        wanted = room
    largest = int(commands.settings().get("MaxArraySize", 1001))
    sizes = [min(largest, wanted - start) for start in range(0, wanted, largest)]
    exclude = bad_nodes.to_exclude(folder, commands.partition_nodes(resources.partition))
    if exclude:
        warnings.append(f"trials died of broken hardware there, so these nodes are left out: {', '.join(exclude)}")
    scripts = [batch_script.script(f"fsr-{folder.name}", size, folder, resources, config, exclude) for size in sizes]
    return Submission(scripts, wanted, len(tasks), warnings)


def submit(
    submission: Submission,
    folder: LaunchFolder,
    config: TrainConfig | InferConfig,
    train: Callable[..., str],
    study: str | None = None,
    database: bool = False,
) -> list[str]:
    """Submit it; returns the ids of the arrays. All that the tasks need lies in the folder before."""
    JobSpec(
        folder=str(folder.folder),
        config=config.to_json(),
        train=code_snapshot.take(folder.code, train),
        study=study,
        database=database,
    ).write(folder.job_spec_file)
    for mistake in folder.slurm.glob("*.mistake"):
        mistake.unlink()
    stamp = time.strftime("%Y%m%d_%H%M%S")
    files = [folder.slurm / f"submission_{stamp}_{index}.sh" for index in range(len(submission.scripts))]
    return [batch_script.sbatch(text, file) for text, file in zip(submission.scripts, files, strict=True)]
