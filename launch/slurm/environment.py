"""The place where a worker works: this machine, or one task of a Slurm array."""

import os
import platform
import time
from typing import Literal

from launch.slurm import commands
from launch.state.attempts import Attempt, Cause
from launch.state.stop import StopRequest

PATIENCE_S = 60
TRIES = 4
EndedBySlurm = Literal["preempted", "time limit", "cancelled"]
# How Slurm's words for an end read in the attempt_log.
CAUSES: dict[str, Cause] = {
    "PREEMPTED": "preempted",
    "REQUEUED": "preempted",
    "TIMEOUT": "time limit",
    "DEADLINE": "time limit",
    "NODE_FAIL": "node",
    "BOOT_FAIL": "node",
    "OUT_OF_MEMORY": "out of memory",
    "CANCELLED": "cancelled",
}


class LocalEnvironment:
    """A process of this machine."""

    task = "local"
    restart = 0

    @property
    def node(self) -> str:
        """Name of the machine."""
        return platform.node()

    def cause_of_stop(self, request: StopRequest) -> Cause:
        """Why the worker was asked to stop."""
        return "cancelled"

    def leave(self, cause: Cause) -> None:
        """Nothing is left to do: nobody puts a local worker back into a queue."""

    def move_off(self, nodes: list[str]) -> None:
        """Nothing can be done: there is no other node."""


class SlurmEnvironment:
    """This task of a Slurm job, named as Slurm names it."""

    def __init__(self) -> None:
        job, array, index = (os.environ.get(f"SLURM_{name}") for name in ("JOB_ID", "ARRAY_JOB_ID", "ARRAY_TASK_ID"))
        self.task = f"{array}_{index}" if array else str(job)
        self.restart = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
        self.node = os.environ.get("SLURMD_NODENAME") or platform.node()

    def cause_of_stop(self, request: StopRequest) -> EndedBySlurm:
        """Why the worker was asked to stop. SIGTERM is preemption or scancel: only the controller can tell which."""
        if request.near_time_limit:
            return "time limit"
        if request.by_file:
            return "cancelled"
        job = commands.job(self.task)
        if job is None or job.preempted or job.waits_or_runs or job.restarts > self.restart:
            # Where there is no answer, the job may be meant to come back, so it must not end by itself.
            return "preempted"
        return "cancelled"

    def leave(self, cause: Cause) -> None:
        """Come back later, if the cause is one to come back from; does not return then.

        A task that exits when it is preempted ends as FAILED and is never requeued; one that waits to be killed comes
        back (measured on Slurm 22.05). A cancelled one must stay cancelled.
        """
        if cause == "preempted" and commands.preemption_cancels(os.environ.get("SLURM_JOB_PARTITION")):
            commands.requeue(self.task)  # this cluster would not
        if cause == "time limit" and not commands.requeue(self.task):
            print("Slurm does not requeue this task; its trial goes on in another one", flush=True)
            return
        waited = 0.0
        while cause in ("preempted", "time limit"):
            time.sleep(1)
            waited += 1
            if waited % PATIENCE_S == 0:
                job = commands.job(self.task)
                if job and job.waits_or_runs and not job.preempted:
                    commands.requeue(self.task)  # a plain SIGTERM from anybody: nobody will kill the job

    def move_off(self, nodes: list[str]) -> None:
        """Come back on another node; does not return, unless Slurm refuses."""
        if not commands.requeue(self.task):
            return
        # Only a job that waits can be kept off nodes, and this one does from now on, although it is still being ended:
        # the first try may be ended as well.
        for _ in range(TRIES):
            time.sleep(1)
            if commands.exclude(self.task, nodes):
                break
        self.leave("preempted")


def current_environment() -> LocalEnvironment | SlurmEnvironment:
    """The environment of this process."""
    return SlurmEnvironment() if "SLURM_JOB_ID" in os.environ else LocalEnvironment()


def cause_of_end(attempt: Attempt) -> tuple[Cause, str]:
    """Why an attempt ended that left no word itself, from what Slurm knows of it."""
    if attempt.task == "local":
        return "killed", "the process is gone"
    past = commands.past_states(attempt.task)
    if past and attempt.restart < len(past) and past[attempt.restart] in CAUSES:
        state = past[attempt.restart]
        return CAUSES[state], f"Slurm's accounts say {state}"
    job = commands.job(attempt.task)
    if job is None or job.state == commands.GONE:
        return "killed", "Slurm knows nothing of it"
    if job.restarts <= attempt.restart:
        return CAUSES.get(job.state, "killed"), f"Slurm says {job.state}"
    if commands.node_is_up(attempt.node) is False:
        return "node", f"node {attempt.node} is down"
    return "preempted", "Slurm requeued the task"
