"""Puts workers on machines: the only importer of submitit."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import submitit
from submitit.slurm.slurm import _make_sbatch_string

from fsr.config import TrainConfig
from fsr.errors import UserError
from fsr.files import write_whole
from fsr.infer_config import InferConfig
from launch.cluster import Resources
from launch.folder import LaunchFolder
from launch.worker import Outcome, Worker

A_YEAR_MIN = 365 * 24 * 60


class Task:
    """A worker that was started on this machine."""

    def __init__(self, job: submitit.Job) -> None:
        self._job = job

    @property
    def log_file(self) -> Path:
        """What the worker printed."""
        return self._job.paths.stderr

    def done(self) -> bool:
        """Whether it ended."""
        return self._job.done()

    def outcome(self) -> Outcome | None:
        """How it ended, or None if it died without a word."""
        if isinstance(self._job, submitit.LocalJob) and not self._job.paths.result_pickle.exists():
            return None  # submitit would wait for it for a while
        try:
            return self._job.result()
        except (submitit.core.utils.UncompletedJobError, submitit.core.utils.FailedJobError):
            return None

    def kill(self) -> None:
        """End it now; the trial goes on from its last checkpoint another time."""
        if not self.done():
            os.kill(int(self._job.job_id), signal.SIGKILL)  # submitit's controller; the worker dies with its parent


def start(worker: Worker, count: int, cluster: str) -> list[Task]:
    """Start `count` workers: processes on this machine (`local`), or one inside this process (`debug`)."""
    folder = worker.folder.submissions(cluster)
    if cluster == "debug":
        job = submitit.DebugExecutor(folder).submit(worker)
        job.wait()
        return [Task(job)]
    executor = submitit.LocalExecutor(folder)
    # A task's processes are this sweep's business: the local executor has no queue, so no time limit either.
    executor.update_parameters(timeout_min=A_YEAR_MIN)
    devices = gpus()
    tasks = []
    # Ctrl-C reaches every process of a terminal, and submitit's controllers answer it with SIGKILL after a second.
    # What is blocked here stays blocked in them; the sweep alone hears it and asks the workers to save.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGHUP))
    try:
        for index in range(count):
            # submitit hides the GPUs from local tasks unless it is told their numbers; names (MIG) it does not know.
            visible = {"CUDA_VISIBLE_DEVICES": devices[index % len(devices)]} if devices else {}
            tasks.append(Task(executor.submit(replace(worker, environment=worker.environment | visible))))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return tasks


def gpus() -> list[str]:
    """Names of the GPUs that this process may use, without importing torch."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name]
    if shutil.which("nvidia-smi") is None:
        return []
    answer = subprocess.run(
        ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True
    )
    return answer.stdout.split() if answer.returncode == 0 else []


def script(
    name: str,
    count: int,
    folder: LaunchFolder,
    resources: Resources,
    config: TrainConfig | InferConfig,
    exclude: list[str],
) -> str:
    """The batch script of an array of `count` workers, each a step of one rank a GPU (or a node) in a loop.

    The loop starts the step again when one of its ranks died and the work may go on; SIGUSR2 goes to the ranks some
    time before the time limit, and Slurm may put the job back into the queue.
    """
    python, file = shlex.quote(sys.executable), shlex.quote(str(folder.assignment_file))
    gpus = resources.gpus_for(config.dataset) // resources.nodes
    text = _make_sbatch_string(
        command=f"{python} -u -m launch.task {file}",
        folder=folder.slurm,
        job_name=name,
        partition=resources.partition,
        account=resources.account,
        qos=resources.qos,
        constraint=resources.constraint,
        exclude=",".join(exclude) or None,
        nodes=resources.nodes,
        ntasks_per_node=max(1, gpus),
        gpus_per_node=gpus or None,
        cpus_per_task=config.cores,
        comment=folder.comment,
        wckey=None,
        signal_delay_s=resources.signal_before_s,
        map_count=count,
        array_parallelism=count,
        additional_parameters={"requeue": True, "time": resources.time_limit} | resources.sbatch_options(),
        srun_args=["--kill-on-bad-exit=1"],
        setup=[f"cd {shlex.quote(str(folder.code))} || exit 1", "export PYTHONPATH=$PWD", "work() {"],
        teardown=[
            "}",
            "for ((round = 1; ; round++)); do",
            "  started=$(date +%s)",
            "  work && exit 0",
            f'  {python} -m launch.afterwards {file} "$?" "$started" "$round" || exit 1',
            "done",
        ],
    )
    # submitit always sets a limit; without one asked for, the partition's own is to hold.
    return text if resources.time_limit else re.sub(r"#SBATCH --time=.*\n", "", text)


def sbatch(text: str, file: Path) -> str:
    """Submit a batch script, which is kept as `file`; returns the array's id. Raises UserError with Slurm's words."""
    write_whole(file, text.encode())
    answer = subprocess.run(["sbatch", "--parsable", str(file)], capture_output=True, text=True)
    if answer.returncode:
        raise UserError(f"sbatch refuses {file}: {' '.join(answer.stderr.split())}")
    return answer.stdout.split(";")[0].strip()
