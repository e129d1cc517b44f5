"""Which workers are alive, in Slurm's queue and on this machine."""

import math
import platform
import time
from collections import Counter

from launch.slurm import commands
from launch.state.attempts import Attempt
from launch.state.paths import LaunchFolder
from launch.state.process import exists

FRESH_S = 2.0


class Queue:
    """Looks into Slurm's queue now and then. The jobs of a folder are known by its id."""

    def __init__(self, folder: LaunchFolder, on_slurm: bool) -> None:
        self._folder = folder
        self._looked = 0.0 if on_slurm else math.inf  # without a queue, nothing can be in it
        self._states: dict[str, str] | None = {}

    def jobs(self) -> dict[str, str] | None:
        """State by id of each job that waits or runs; None if Slurm does not answer."""
        now = time.time()
        if now - self._looked >= FRESH_S:
            identity = self._folder.identity
            self._states = {} if identity is None else commands.job_states(identity)
            self._looked = now
        return self._states

    def states(self) -> dict[str, int] | None:
        """How many of these jobs are in each state."""
        jobs = self.jobs()
        return None if jobs is None else dict(Counter(jobs.values()))

    def holds(self, attempt: Attempt) -> bool:
        """Whether an attempt that has not ended still works, as far as can be known from here."""
        if attempt.job == "local":
            return attempt.node != platform.node() or exists(attempt.pid)
        jobs = self.jobs()
        if jobs is None or attempt.started > self._looked:  # younger than what is known of the queue
            return True
        return jobs.get(attempt.job) in ("RUNNING", "COMPLETING", "SIGNALING", "SUSPENDED")
