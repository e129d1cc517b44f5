"""What the kinds of worker have in common: a study's, a single run's and an inference's."""

from collections.abc import Callable
from enum import Enum
from typing import Protocol

from launch.slurm.environment import Environment
from launch.state.attempts import Attempt, Cause
from launch.state.paths import LaunchFolder
from launch.state.stop import StopRequest
from launch.worker.rendezvous import Rendezvous

FindCause = Callable[[Attempt], tuple[Cause, str]]


class Outcome(Enum):
    """How a worker ended."""

    DONE = "done"
    """Nothing is left for it to do."""
    STOPPED = "stopped"
    """It was asked to, before the work was done; everything is saved."""
    BROKEN = "broken"
    """A run broke in it, and only a new process is sure to be sound (CUDA, other ranks)."""
    MISTAKE = "mistake"
    """The user has to mend something; what, is in the folder's mistakes."""


class Worker(Protocol):
    """Who does the work of a job."""

    @property
    def folder(self) -> LaunchFolder:
        """Where it works."""

    def work(self, stop: StopRequest, environment: Environment, rendezvous: Rendezvous) -> Outcome:
        """Work as rank 0 until nothing is left, a stop is requested or a run broke; raises UserError for a mistake."""

    def follow(self, stop: StopRequest, rendezvous: Rendezvous) -> None:
        """Work as another rank until rank 0 says that nothing is left."""

    def nodes_at_work(self) -> set[str]:
        """Nodes where an attempt came to its first step, as far as it is recorded."""

    def close_lost(self, job: str, since: float, find_cause: FindCause) -> bool:
        """Record what ended a job's attempt that died; False if the job had none since then (Unix time)."""
