"""The environment of a worker: this machine, or a job of Slurm. It says who the worker is, and how it leaves."""

import os
import platform
import time
from typing import Protocol

from launch.slurm import commands, requeue_rules
from launch.slurm.job_states import Stage, stage
from launch.slurm.requeue_rules import Action
from launch.state.attempts import Attempt, Cause
from launch.state.stop import StopRequest

ASK_EVERY_S = 60
TRIES = 4
OURS = ("fsr", "launch", "sweeps")  # packages that workers import from the code snapshot


class Environment(Protocol):
    """Where a worker works."""

    @property
    def job(self) -> str:
        """Slurm's id of the job or array task (`12_3`), or `local`."""

    @property
    def restarts(self) -> int:
        """How often Slurm had requeued the job before."""

    @property
    def node(self) -> str:
        """Name of the machine."""

    def cause_of_stop(self, request: StopRequest) -> Cause:
        """Why the worker was asked to stop."""

    def is_preempted(self) -> bool:
        """Whether the worker has to go for another's sake, as far as can be known."""

    def leave(self, cause: Cause) -> None:
        """Do what the rules say of a stop with this cause, after everything is saved."""

    def move_off(self, nodes: list[str]) -> None:
        """Leave for a node that is none of these, if there is a way."""


class LocalEnvironment:
    """A process of this machine. No queue brings it back, so it just ends."""

    job = "local"
    restarts = 0

    @property
    def node(self) -> str:
        """Name of the machine."""
        return platform.node()

    def cause_of_stop(self, request: StopRequest) -> Cause:
        """The user stopped it."""
        return "cancelled"

    def is_preempted(self) -> bool:
        """Nobody preempts a process of the user."""
        return False

    def leave(self, cause: Cause) -> None:
        """There is nothing to do."""

    def move_off(self, nodes: list[str]) -> None:
        """There is no other node."""


class SlurmEnvironment:
    """This job of Slurm, or this task of a job array, by the id that Slurm gave it."""

    def __init__(self) -> None:
        job, array, index = (os.environ.get(f"SLURM_{name}") for name in ("JOB_ID", "ARRAY_JOB_ID", "ARRAY_TASK_ID"))
        self.job = f"{array}_{index}" if array else str(job)
        self.restarts = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
        self.node = os.environ.get("SLURMD_NODENAME") or platform.node()

    def cause_of_stop(self, request: StopRequest) -> Cause:
        """Why the worker was asked to stop; asks Slurm where the request does not say."""
        known = request.near_time_limit or request.by_file
        job = None if known else commands.job(self.job)
        return requeue_rules.cause_of_stop(request.near_time_limit, request.by_file, job, self.restarts)

    def leave(self, cause: Cause) -> None:
        """Requeue or wait to be killed, as the rules say; returns only where the job is to end."""
        where = os.environ.get("SLURM_JOB_PARTITION"), os.environ.get("SLURM_JOB_QOS")
        cancels = cause == "preempted" and commands.preemption_cancels(*where)
        action = requeue_rules.after_stop(cause, bool(cancels))
        if action is Action.REQUEUE and not self._requeue() and cause != "preempted":
            print("Slurm does not requeue this job; another worker resumes its trial", flush=True)
        elif action in (Action.REQUEUE, Action.WAIT_TO_BE_KILLED):
            self._wait_to_be_killed()

    def is_preempted(self) -> bool:
        """Whether Slurm says that the job has to go: a signal that came before this process could see it is lost."""
        job = commands.job(self.job)
        return job is not None and job.preempted

    def move_off(self, nodes: list[str]) -> None:
        """Requeue, to start on another node; returns only if Slurm refuses."""
        if not self._requeue():
            return
        # Only a job that waits can be kept off nodes, and this one does from now on, although it is still being ended:
        # the first try may be ended as well.
        for _ in range(TRIES):
            time.sleep(1)
            if commands.exclude(self.job, nodes):
                break
        self.leave("preempted")

    def _requeue(self) -> bool:
        """Whether Slurm requeues the job. No answer is not "no": it is asked until it gives one."""
        while not commands.requeue(self.job):
            if commands.job(self.job) is not None:
                return commands.requeue(self.job)  # the controller may have come back between the two questions
            time.sleep(1)
        return True

    def _wait_to_be_killed(self) -> None:
        """Returns only where Slurm, which lost sight of this process, has the job at work elsewhere."""
        waited_s = 0
        while True:
            time.sleep(1)
            waited_s += 1
            job = commands.job(self.job) if waited_s % ASK_EVERY_S == 0 else None
            if job is not None and job.restarts > self.restarts and stage(job.state) is Stage.WORKS:
                return
            if requeue_rules.nobody_will_kill(job):
                commands.requeue(self.job)


def leave_job() -> None:
    """Make this process forget the job, step or torchrun that it was started in: a local worker is alone.

    Its GPUs and cores stay those that it was given.
    """
    for name in os.environ.keys() - commands.without_job(os.environ).keys():
        del os.environ[name]


def foreign_packages() -> list[str]:
    """The caller's PYTHONPATH as far as it is not this project: a loaded module may have put packages there."""
    entries = [os.path.abspath(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    return [entry for entry in dict.fromkeys(entries) if not any(os.path.isdir(f"{entry}/{name}") for name in OURS)]


def current_environment() -> Environment:
    """The environment of this process."""
    return SlurmEnvironment() if "SLURM_JOB_ID" in os.environ else LocalEnvironment()


def cause_of_lost_attempt(attempt: Attempt, identity: str | None = None) -> tuple[Cause, str]:
    """Cause and detail of an attempt that died and has no cause in its log, from what Slurm knows of it.

    `identity` is the folder's: job numbers may have started again since.
    """
    if attempt.job == "local":
        return requeue_rules.cause_of_lost_attempt(attempt, None, None, None)
    past_states, job = commands.past_states(attempt.job, identity), commands.job(attempt.job, identity)
    return requeue_rules.cause_of_lost_attempt(attempt, past_states, job, commands.node_is_up(attempt.node))
