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
    """Looks into Slurm's queue now and then. The jobs are known by their comment, which names their folder."""

    def __init__(self, folder: LaunchFolder, on_slurm: bool) -> None:
        self._comment = folder.comment
        self._looked = 0.0 if on_slurm else math.inf  # without a queue, nothing can be in it
        self._tasks: dict[str, str] | None = {}

    def tasks(self) -> dict[str, str] | None:
        """State of each live array task; None if Slurm does not answer."""
        now = time.time()
        if now - self._looked >= FRESH_S:
            self._tasks = commands.tasks(self._comment)
            self._looked = now
        return self._tasks

    def states(self) -> dict[str, int] | None:
        """How many live array tasks are in each state."""
        tasks = self.tasks()
        return None if tasks is None else dict(Counter(tasks.values()))

    def holds(self, attempt: Attempt) -> bool:
        """Whether an attempt that has not ended still works, as far as can be known from here."""
        if attempt.task == "local":
            return attempt.node != platform.node() or exists(attempt.pid)
        tasks = self.tasks()
        if tasks is None or attempt.started > self._looked:  # younger than what is known of the queue
            return True
        return tasks.get(attempt.task) in ("RUNNING", "COMPLETING", "SIGNALING", "SUSPENDED")
