"""Questions to Slurm. Any of them may stay without an answer (None): a node may lack the command, the controller may
be down, a cluster may keep no accounts."""

import os
import pwd
import re
import shutil
import subprocess
from dataclasses import dataclass

PATIENCE_S = 10
ENDED = (
    "COMPLETED",
    "FAILED",
    "TIMEOUT",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "CANCELLED",
    "PREEMPTED",
    "BOOT_FAIL",
    "DEADLINE",
)
GONE = "GONE"  # our word for a job that Slurm has forgotten


@dataclass(frozen=True)
class Job:
    """One job or array task as the controller sees it."""

    state: str
    """Slurm's word, such as RUNNING; GONE if Slurm knows no such job (any more)."""
    restarts: int = 0
    preempted: bool = False
    """It was told to go because a job of higher priority wants its nodes."""

    @property
    def waits_or_runs(self) -> bool:
        """Whether it will still do, or is doing, its work."""
        return self.state not in (GONE, *ENDED) and self.state != "COMPLETING"


def answers() -> bool:
    """Whether this machine can submit to a Slurm that is up."""
    return shutil.which("sbatch") is not None and _ask("scontrol", "ping") is not None


def job(job_id: str) -> Job | None:
    """The job or array task (`12_3`) of this number."""
    answer = _run("scontrol", "show", "job", "-o", job_id)
    if answer is None:
        return None
    if answer.returncode:
        return Job(GONE) if "Invalid job id" in answer.stderr else None
    fields = _fields(answer.stdout)
    return Job(
        state=fields["JobState"],
        restarts=int(fields.get("Restarts", 0)),
        # Both are ISO times or words; the time of an earlier preemption stays there after the job came back.
        preempted=fields.get("StartTime", "") <= fields.get("PreemptTime", "") < "A",
    )


def tasks(comment: str) -> dict[str, str] | None:
    """State of every array task of this user that waits or runs, by id (`12_3`), of the jobs with this comment."""
    listing = _ask("squeue", "--me", "--noheader", "--array", "--format=%i|%T|%k")
    if listing is None:
        return None
    rows = (line.split("|", 2) for line in listing.splitlines())
    return {task: state for task, state, said in rows if said == comment}


def past_states(task: str) -> list[str] | None:
    """How each start of a task ended, oldest first, from the accounts: TIMEOUT, NODE_FAIL, PREEMPTED, …"""
    listing = _ask(
        "sacct", "--duplicates", "--noheader", "--parsable2", "--allocations", "--jobs", task, "--format=State"
    )
    if listing is None or not listing.strip():
        return None
    return [line.split()[0] for line in listing.splitlines() if line.strip()]


def step_state(step: str) -> str | None:
    """How a step (`12.0`) ended, from the accounts: OUT_OF_MEMORY tells what no exit code does."""
    listing = _ask("sacct", "--noheader", "--parsable2", "--jobs", step, "--format=State") or ""
    return listing.split()[0] if listing.strip() else None


def node_is_up(name: str) -> bool | None:
    """Whether a node can work."""
    answer = _ask("sinfo", "--noheader", "--nodes", name, "--format=%T")
    if not answer:
        return None
    return not answer.split()[0].lower().startswith(("down", "drain", "fail", "unknown"))


def partition_nodes(partition: str | None) -> set[str] | None:
    """Names of all nodes that a job may get."""
    answer = _ask("sinfo", "--noheader", "--Node", "--format=%N", *(["--partition", partition] if partition else []))
    return None if answer is None else set(answer.split())


def requeue(job_id: str) -> bool:
    """Ask Slurm to put a job back into the queue, which ends it here; whether it said yes."""
    return _ask("scontrol", "requeue", job_id) is not None


def exclude(job_id: str, names: list[str]) -> bool:
    """Keep a job off these nodes; whether Slurm said yes."""
    return _ask("scontrol", "update", f"jobid={job_id}", f"excnodelist={','.join(names)}") is not None


def preemption_cancels(partition: str | None) -> bool:
    """Whether this partition's jobs are cancelled, not requeued, when they are preempted."""
    return partitions().get(partition or "", {}).get("PreemptMode", "").startswith("CANCEL")


def settings() -> dict[str, str]:
    """What `scontrol show config` says; empty if it says nothing."""
    answer = _ask("scontrol", "show", "config") or ""
    return dict(re.findall(r"^(\w+)\s*= (.*?)\s*$", answer, re.MULTILINE))


def partitions() -> dict[str, dict[str, str]]:
    """Every partition's settings by name; empty if Slurm does not answer."""
    rows = (_fields(line) for line in (_ask("scontrol", "show", "partition", "-o") or "").splitlines() if line)
    return {row["PartitionName"]: row for row in rows}


def submit_limit() -> int | None:
    """Most jobs and array tasks that this user may have in the queue, if the accounts set one."""
    words = ("show", "assoc", f"user={pwd.getpwuid(os.getuid()).pw_name}", "format=MaxSubmitJobs,GrpSubmitJobs")
    listing = _ask("sacctmgr", "--noheader", "--parsable2", *words) or ""
    numbers = [int(number) for number in re.findall(r"\d+", listing)]
    return min(numbers) if numbers else None


def own_jobs() -> int:
    """Jobs and array tasks of this user in the queue; 0 if Slurm does not answer."""
    return len((_ask("squeue", "--me", "--noheader", "--array", "--format=%i") or "").split())


def _fields(line: str) -> dict[str, str]:
    return dict(re.findall(r"(\w+)=(\S*)", line))


def _ask(*command: str) -> str | None:
    answer = _run(*command)
    return answer.stdout if answer is not None and answer.returncode == 0 else None


def _run(*command: str) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
