"""Questions to Slurm. Any of them may stay without an answer (None): a machine may lack the command, the controller
may be down, a cluster may keep no accounts."""

import os
import pwd
import shutil
import subprocess

from launch.slurm import answers
from launch.slurm.answers import GONE, Job

PATIENCE_S = 10


def answers_here() -> bool:
    """Whether this machine can submit to a Slurm that is up."""
    return shutil.which("sbatch") is not None and _ask("scontrol", "ping") is not None


def job(job_id: str) -> Job | None:
    """The job or array task (`12_3`) of this id."""
    answer = _run("scontrol", "show", "job", "-o", job_id)
    if answer is None:
        return None
    if answer.returncode:
        return Job(GONE) if "Invalid job id" in answer.stderr else None
    return answers.job(answer.stdout)


def job_states(identity: str) -> dict[str, str] | None:
    """State by id (`12_3`) of every job and array task of this user with this identity that waits or runs."""
    listing = _ask("squeue", "--me", "--noheader", "--array", "--format=%i|%T|%j|%k")
    return None if listing is None else answers.job_states(listing, identity)


def past_states(job_id: str) -> list[str] | None:
    """How each start of a job ended, oldest first, from the accounts: TIMEOUT, NODE_FAIL, PREEMPTED, …"""
    command = ("sacct", "--duplicates", "--noheader", "--parsable2", "--allocations", "--jobs", job_id)
    return answers.past_states(_ask(*command, "--format=State") or "")


def step_state(step: str) -> str | None:
    """How a step (`12.0`) ended, from the accounts: OUT_OF_MEMORY tells what no exit code does."""
    states = answers.past_states(_ask("sacct", "--noheader", "--parsable2", "--jobs", step, "--format=State") or "")
    return states[0] if states else None


def node_is_up(name: str) -> bool | None:
    """Whether a node can work."""
    return answers.node_is_up(_ask("sinfo", "--noheader", "--nodes", name, "--format=%T") or "")


def partition_nodes(partition: str | None) -> set[str] | None:
    """Names of all nodes that a job may get."""
    answer = _ask("sinfo", "--noheader", "--Node", "--format=%N", *(["--partition", partition] if partition else []))
    return None if answer is None else set(answer.split())


def requeue(job_id: str) -> bool:
    """Ask Slurm to requeue a job, which ends it here; whether Slurm said yes."""
    return _ask("scontrol", "requeue", job_id) is not None


def exclude(job_id: str, names: list[str]) -> bool:
    """Keep a job off these nodes; whether Slurm said yes."""
    return _ask("scontrol", "update", f"jobid={job_id}", f"excnodelist={','.join(names)}") is not None


def preemption_cancels(partition: str | None) -> bool:
    """Whether this partition's jobs are cancelled, not requeued, when they are preempted."""
    return partitions().get(partition or "", {}).get("PreemptMode", "").startswith("CANCEL")


def settings() -> dict[str, str]:
    """What `scontrol show config` says; empty if it says nothing."""
    return answers.settings(_ask("scontrol", "show", "config") or "")


def partitions() -> dict[str, dict[str, str]]:
    """Every partition's settings by name; empty if Slurm does not answer."""
    return answers.partitions(_ask("scontrol", "show", "partition", "-o") or "")


def submit_limit() -> int | None:
    """Most jobs and array tasks that this user may have in the queue, if the accounts set a limit."""
    words = ("show", "assoc", f"user={pwd.getpwuid(os.getuid()).pw_name}", "format=MaxSubmitJobs,GrpSubmitJobs")
    return answers.submit_limit(_ask("sacctmgr", "--noheader", "--parsable2", *words) or "")


def own_jobs() -> int:
    """Jobs and array tasks of this user in the queue; 0 if Slurm does not answer."""
    return len((_ask("squeue", "--me", "--noheader", "--array", "--format=%i") or "").split())


def _ask(*command: str) -> str | None:
    answer = _run(*command)
    return answer.stdout if answer is not None and answer.returncode == 0 else None


def _run(*command: str) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
