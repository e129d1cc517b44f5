"""Workers as processes of this machine."""

import os
import shutil
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import submitit

from launch.worker.protocol import Outcome
from launch.worker.study import StudyWorker

A_YEAR_MIN = 365 * 24 * 60


class LocalWorker:
    """A worker that was started on this machine."""

    def __init__(self, job: submitit.Job[Outcome]) -> None:
        self._job = job

    @property
    def log_file(self) -> Path:
        """What the worker printed."""
        return self._job.paths.stderr

    def done(self) -> bool:
        """Whether it ended."""
        return self._job.done()

    def outcome(self) -> Outcome | None:
        """How it ended, or None if it died before it could tell."""
        if isinstance(self._job, submitit.LocalJob) and not self._job.paths.result_pickle.exists():
            return None  # submitit would wait for it for a while
        try:
            outcome: Outcome = self._job.result()
        except (submitit.core.utils.UncompletedJobError, submitit.core.utils.FailedJobError):
            return None
        return outcome

    def kill(self) -> None:
        """End it now; another worker resumes its trial from the last checkpoint."""
        if not self.done():
            os.kill(int(self._job.job_id), signal.SIGKILL)  # submitit's controller; the worker dies with its parent


def start(worker: StudyWorker, count: int, cluster: str) -> list[LocalWorker]:
    """Start `count` workers: processes on this machine (`local`), or one inside this process (`debug`)."""
    folder = worker.folder.submissions(cluster)
    if cluster == "debug":
        job = submitit.DebugExecutor(folder).submit(worker)
        job.wait()
        return [LocalWorker(job)]
    executor = submitit.LocalExecutor(folder)
    # Local workers live as long as the sweep: there is no queue, so no time limit either.
    executor.update_parameters(timeout_min=A_YEAR_MIN)
    devices = gpus()
    workers = []
    # Ctrl-C reaches every process of a terminal, and submitit's controllers answer it with SIGKILL after a second.
    # What is blocked here stays blocked in them; the sweep alone hears it and asks the workers to save.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGHUP))
    try:
        for index in range(count):
            # submitit hides the GPUs from local jobs unless it is told their numbers; names (MIG) it does not know.
            visible = {"CUDA_VISIBLE_DEVICES": devices[index % len(devices)]} if devices else {}
            workers.append(LocalWorker(executor.submit(replace(worker, variables=worker.variables | visible))))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return workers


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
