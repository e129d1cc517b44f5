"""Questions to Slurm. Any of them may stay without an answer (None): a machine may lack the command, the controller
may be down, a cluster may keep no accounts.

Slurm's commands read options from their environment, and inside a job Slurm itself sets many more. So every command of
Slurm gets the environment that `environment` makes.
"""

import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence

from launch.slurm import answers
from launch.slurm.answers import GONE, Job

PATIENCE_S = 10
# Which Slurm is asked, and how a user proves who he is: without them, another cluster would answer, or none.
KEPT = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT", "SLURM_SACK_SOCKET")
SLURMS = re.compile("(SLURM|SBATCH|SALLOC|SRUN|SQUEUE|SACCT|SACCTMGR|SINFO|SCONTROL|SCANCEL|SSTAT|SPRIO|SREPORT)D?_")
# What torchrun tells its processes: whoever finds it waits for ranks of a launch that is not his.
TORCHRUN = re.compile(
    "(RANK|LOCAL_RANK|GROUP_RANK|ROLE_RANK|WORLD_SIZE|LOCAL_WORLD_SIZE|GROUP_WORLD_SIZE|ROLE_WORLD_SIZE|ROLE_NAME"
    "|MASTER_ADDR|MASTER_PORT|TORCHELASTIC_.*)$"
)
# The devices of the job that a command is called from; a job that it submits has others.
DEVICES = (
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "GPU_DEVICE_ORDINAL",
    "ZE_AFFINITY_MASK",
)


def without_job(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables without options of Slurm's commands, and without what describes a job, a step or a rank."""
    return {n: v for n, v in variables.items() if n in KEPT or not (SLURMS.match(n) or TORCHRUN.match(n))}


def environment() -> dict[str, str]:
    """The environment of every command of Slurm, and so of every job that is submitted.

    It is the caller's without Slurm's input variables (`SBATCH_PARTITION`, `SQUEUE_FORMAT`, …) and without the job that
    the caller may be inside of. Times are in ISO form, as `answers` reads them.
    """
    foreign = DEVICES if "SLURM_JOB_ID" in os.environ else ()
    clean = {n: v for n, v in without_job(os.environ).items() if n not in foreign}
    return clean | {"SLURM_TIME_FORMAT": "standard"}


def overridden() -> list[str]:
    """Names of the user's variables that would have changed a job or an answer, and do not.

    Inside a job, what begins with SLURM_ is Slurm's own, as is SRUN_DEBUG, and nobody asked for it.
    """
    own = ("SLURM_", "SLURMD_", "SRUN_DEBUG") if "SLURM_JOB_ID" in os.environ else ()
    names = sorted(n for n in os.environ if SLURMS.match(n) and n not in (*KEPT, "SLURM_TIME_FORMAT"))
    return [name for name in names if not name.startswith(own)]


def notes() -> list[str]:
    """What a user should know of the environment, one sentence each."""
    names = overridden()
    return [f"not passed on to Slurm (flags and --sbatch are): {', '.join(names)}"] if names else []


def answers_here() -> bool:
    """Whether this machine can submit to a Slurm that is up."""
    return shutil.which("sbatch") is not None and _ask("scontrol", "ping") is not None


def job(job_id: str) -> Job | None:
    """The job or array task (`12_3`) of this id."""
    answer = run("scontrol", "show", "job", "-o", job_id)
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
    return None if answer is None else answers.names(answer)


def requeue(job_id: str) -> bool:
    """Ask Slurm to requeue a job, which ends it here; whether Slurm said yes."""
    return _ask("scontrol", "requeue", job_id) is not None


def exclude(job_id: str, names: list[str]) -> bool:
    """Keep a job off these nodes, too; whether Slurm said yes."""
    before = answers.excluded(_ask("scontrol", "show", "job", "-o", job_id) or "")
    return _ask("scontrol", "update", f"jobid={job_id}", f"excnodelist={union(before, names)}") is not None


def union(nodes: str | None, names: Sequence[str]) -> str:
    """A list of nodes as Slurm writes it, with those of `names` that are not in it yet."""
    listed = nodes.split(",") if nodes else []
    return ",".join([*listed, *(name for name in names if name not in listed)])


def preemption_cancels(partition: str | None, qos: str | None) -> bool | None:
    """Whether a job of this partition and QOS is cancelled, not requeued, when it is preempted.

    None if Slurm does not tell, as where its QOS are asked for and the accounts do not answer.
    """
    mode = answers.preempt_mode(settings(), partitions().get(partition or ""), qos_settings().get(qos or ""))
    return None if mode is None else mode == "CANCEL"


def qos_settings() -> dict[str, dict[str, str]]:
    """PreemptMode and Preempt (whom it may preempt) of every QOS by name; empty if the accounts do not answer."""
    fields = ("Name", "PreemptMode", "Preempt")
    listing = _ask("sacctmgr", "--noheader", "--parsable2", "show", "qos", f"format={','.join(fields)}")
    return {row["Name"]: row for row in answers.rows(listing or "", fields)}


def settings() -> dict[str, str]:
    """What `scontrol show config` says; empty if it says nothing."""
    return answers.settings(_ask("scontrol", "show", "config") or "")


def partitions() -> dict[str, dict[str, str]]:
    """Every partition's settings by name; empty if Slurm does not answer."""
    return answers.partitions(_ask("scontrol", "show", "partition", "-o") or "")


def partition_time_limits(partition: str | None) -> dict[str, str]:
    """The limits that hold where none is asked for, by what sets each; None is the default partition."""
    names = partition.split(",") if partition else None
    rows = {n: r for n, r in partitions().items() if (n in names if names else r.get("Default") == "YES")}
    return {f"partition {name}": limit for name, row in rows.items() if (limit := answers.time_limit(row))}


def submit_limit() -> int | None:
    """Most jobs and array tasks that this user may have in the queue, if the accounts set a limit."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # in a container, say; the accounts know users by their names alone
        return None
    words = ("show", "assoc", f"user={user}", "format=MaxSubmitJobs,GrpSubmitJobs")
    return answers.submit_limit(_ask("sacctmgr", "--noheader", "--parsable2", *words) or "")


def own_jobs() -> int:
    """Jobs and array tasks of this user in the queue; 0 if Slurm does not answer."""
    return len(answers.names(_ask("squeue", "--me", "--noheader", "--array", "--format=%i") or ""))


def run(*command: str, patience_s: float | None = PATIENCE_S) -> subprocess.CompletedProcess[str] | None:
    """Run a command of Slurm in its clean environment; None if it is not there, or takes longer than `patience_s`."""
    try:
        return subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",  # as in the names of files
            timeout=patience_s,
            env=environment(),
        )
    except (FileNotFoundError, PermissionError, subprocess.TimeoutExpired):
        return None


def _ask(*command: str) -> str | None:
    answer = run(*command)
    return answer.stdout if answer is not None and answer.returncode == 0 else None
