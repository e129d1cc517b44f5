"""Workers as processes of this machine. They run the same program, from the same code snapshot, as those on Slurm."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from fsr.exit_codes import ExitCode
from fsr.files import open_file
from launch.slurm import commands
from launch.slurm.environment import foreign_packages
from launch.worker.protocol import Outcome

OUTCOMES = {
    ExitCode.DONE: Outcome.DONE,
    ExitCode.INTERRUPTED: Outcome.STOPPED,
    ExitCode.BROKEN: Outcome.BROKEN,
    ExitCode.MISTAKE: Outcome.MISTAKE,
}


class LocalWorker:
    """A worker that was started on this machine."""

    def __init__(self, spec_file: Path, code: Path, log_file: Path, variables: dict[str, str]) -> None:
        """Start it, with these environment variables."""
        self.log_file = log_file
        """What the worker prints."""
        # In a shell of a Slurm job a local worker has nothing to do with that job.
        environment = commands.without_job(os.environ) | variables
        environment["PYTHONPATH"] = os.pathsep.join([str(code), *foreign_packages()])
        command = [sys.executable, "-u", "-m", "launch.worker.main", str(spec_file)]
        # In a session of its own, because Ctrl-C reaches every process of a terminal: the sweep alone hears it, and
        # asks its workers to save.
        with open_file(log_file, "wb") as log:
            self._process = subprocess.Popen(
                command, cwd=code, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def done(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def outcome(self) -> Outcome | None:
        """How it ended, or None if it died before it could tell. Waits for its end."""
        return OUTCOMES.get(self._process.wait())  # type: ignore[call-overload, no-any-return]  # an ExitCode is an int

    def kill(self) -> None:
        """End it now; another worker resumes its trial from the last checkpoint."""
        self._process.kill()


def start(spec_file: Path, code: Path, log_folder: Path, count: int, threads: int) -> list[LocalWorker]:
    """Start `count` workers, each with so many threads of torch and, in turn, one of this machine's GPUs."""
    devices = gpus()
    variables = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
    workers = []
    for index in range(count):
        visible = {"CUDA_VISIBLE_DEVICES": devices[index % len(devices)]} if devices else {}
        log_file = log_folder / f"{spec_file.stem}_{index}.log"
        workers.append(LocalWorker(spec_file, code, log_file, variables | visible))
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
