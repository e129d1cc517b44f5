"""Questions to Slurm. Any of them may stay without an answer: a machine may lack the command, the controller may be
down or busy, a cluster may keep no accounts. No answer is None, or `Silence` where a user is to hear the reason.

Slurm's commands read options from their environment, and inside a job Slurm itself sets many more. So every command of
Slurm gets the environment that `environment` makes.
"""

import os
import pwd
import random
import re
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from launch.slurm import answers, limits
from launch.slurm.answers import Job, Limit, QueuedJob
from launch.slurm.job_states import GONE

PATIENCE_S = 20.0  # longer than Slurm's own (MessageTimeout, 10 s), so that its words are heard
TRIES, PAUSE_S = 3, (0.5, 1.5)  # drawn anew each time, so that many workers do not ask again at once
MOST_WORDS = 300  # of an answer in a sentence
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


@dataclass(frozen=True)
class Silence:
    """No answer, and why: the command and its words."""

    words: str


def presence() -> Literal["absent", "answers"] | Silence:
    """Whether Slurm is here: absent where this machine lacks its commands, or nobody has told them of a cluster."""
    if shutil.which("sbatch") is None:
        return "absent"
    answer = ask("scontrol", "ping")
    if isinstance(answer, Silence):
        return answer
    if answers.controller_is_up(answer.stdout):
        return "answers"
    lost = "SLURM_CONF" not in os.environ and answers.is_unconfigured(answer.stderr)
    return "absent" if lost else Silence(said(("scontrol", "ping"), answer))


def job(job_id: str, identity: str | None = None) -> Job | None:
    """The job or array task (`12_3`) of this id; with an identity, another folder's job of the same number is GONE.

    Job numbers start again where a controller has lost its state.
    """
    answer = ask("scontrol", "show", "job", "-o", job_id)
    if isinstance(answer, Silence):
        return None
    if answer.returncode:
        return Job(GONE) if "Invalid job id" in answer.stderr + answer.stdout else None
    return answers.job(answer.stdout, identity)


def queued_jobs(identity: str) -> dict[str, QueuedJob] | Silence:
    """By id (`12_3`): every job and array task of this user with this identity that waits, runs or is ending."""
    listing = _queue()
    return listing if isinstance(listing, Silence) else answers.queued_jobs(listing, identity)


def _queue(*filters: str, user: bool = True) -> list[list[str]] | Silence:
    """The rows of squeue: id, state, reason, name, comment. Only Slurm 20.02 and later know --me."""
    whose = [f"--user={os.getuid()}"] if user else []
    command = ("squeue", "--array", f"--format={answers.QUEUE_FORMAT}", *whose, *filters)
    answer = ask(*command)
    if isinstance(answer, Silence):
        return answer
    rows = answers.queue_rows(answer.stdout) if answer.returncode == 0 else None
    return Silence(said(command, answer)) if rows is None else rows


def past_states(job_id: str, identity: str | None = None) -> list[str] | None:
    """How each start of a job ended, oldest first, from the accounts: TIMEOUT, NODE_FAIL, PREEMPTED, …

    With an identity, only those whose name has it, where any has: the accounts keep older jobs of the same number.
    """
    command = ("sacct", "--duplicates", "--noheader", "--parsable2", "--allocations", "--jobs", job_id)
    return answers.past_states(_ask(*command, "--format=State,JobName") or "", identity)


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
    """PreemptMode, Preempt (whom it may preempt) and GraceTime of every QOS by name; empty without an answer."""
    fields = ("Name", "PreemptMode", "Preempt", "GraceTime")
    return {row["Name"]: row for row in _accounts("qos", fields) or []}


def settings() -> dict[str, str]:
    """What `scontrol show config` says; empty if it says nothing."""
    return answers.settings(_ask("scontrol", "show", "config") or "")


def partitions() -> dict[str, dict[str, str]]:
    """Every partition's settings by name; empty if Slurm does not answer."""
    return answers.partitions(_ask("scontrol", "show", "partition", "-o") or "")


def submit_limits(account: str | None, partition: str | None, qos: str | None) -> list[Limit] | None:
    """The limits on jobs in the queue that hold for this account (or the default one), partition and QOS.

    None if the accounts do not answer; empty where they set none, or where the cluster keeps none.
    """
    who = _user_and_account(account, found := settings())
    if not who:
        return None if who is None else []
    user, account = who
    here = _of_cluster(found)
    rows, limited = _accounts("assoc", answers.ASSOCIATION, f"account={account}", *here), _accounts("qos", answers.QOS)
    accounts = _accounts("assoc", limits.ACCOUNT, "user=", *here) or []  # which not every site shows
    if rows is None or limited is None:
        return None
    of_partitions = {name: row.get("QoS", "N/A") for name, row in partitions().items()}
    above = [(row, limits.below(row["Account"], accounts)) for row in limits.above(account, accounts)]
    return answers.submit_limits(rows, limited, user, account, partition, qos, of_partitions, above)


def cluster_limit(found: Mapping[str, str]) -> Limit | None:
    """The limit on the jobs of all users, by the settings of the cluster; None if they do not tell it."""
    number = found.get("MaxJobCount", "")
    # Below it by one, as Slurm 22.05 counts; jobs that ended a moment ago count, too.
    everybody = "all users of the cluster together"
    return Limit(int(number) - 1, everybody, ("--states=all",), False, "MaxJobCount") if number.isdigit() else None


def account_rules(account: str | None) -> limits.Told | None:
    """What the accounts and partitions tell of jobs of this account (or the default one); None without an answer."""
    who = _user_and_account(account, found := settings())
    if not who:
        return None if who is None else limits.Told(partitions=partitions())
    user, account = who
    here = _of_cluster(found)
    associations = _accounts("assoc", limits.ASSOCIATION, f"account={account}", *here)
    accounts, qos = _accounts("assoc", limits.ACCOUNT, "user=", *here) or [], _accounts("qos", limits.QOS)
    if associations is None or qos is None:
        return None
    return limits.Told(user, account, associations, accounts, qos, partitions())


def _user_and_account(account: str | None, found: Mapping[str, str]) -> tuple[str, str] | tuple[()] | None:
    """This user and the account that jobs are charged to; nothing where none are kept, None without an answer."""
    if "slurmdbd" not in found.get("AccountingStorageType", "slurmdbd"):
        return ()
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # in a container, say; the accounts know users by their names alone
        return ()
    if account is None:
        users = _accounts("user", ("DefaultAccount",), user)
        if users is None:
            return None
        account = users[0]["DefaultAccount"] if users else ""
    return user, account


def _of_cluster(found: Mapping[str, str]) -> list[str]:
    return [f"cluster={found['ClusterName']}"] if "ClusterName" in found else []


def _accounts(what: str, names: Sequence[str], *which: str) -> list[dict[str, str]] | None:
    listing = _ask("sacctmgr", "--noheader", "--parsable2", "show", what, *which, f"format={','.join(names)}")
    return None if listing is None else answers.rows(listing, names)


def jobs_that_count(limit: Limit) -> int | None:
    """Jobs and array tasks in the queue that count for a limit; None if Slurm does not answer."""
    rows = _queue(*limit.filters, user=limit.of_user)
    return None if isinstance(rows, Silence) else len(rows)


def ask(*command: str) -> subprocess.CompletedProcess[str] | Silence:
    """What a command answers, be it an error. One that did not get through is tried again, within PATIENCE_S."""
    deadline, silence = time.monotonic() + PATIENCE_S, None
    for number in range(1, TRIES + 1):
        began = time.monotonic()
        try:
            answer = _run(command, deadline - began)
        except subprocess.TimeoutExpired:
            return silence or Silence(f"`{_shown(command)}` takes longer than {PATIENCE_S:.0f} s")
        except OSError as error:
            return Silence(f"`{_shown(command)}` cannot be started: {error.strerror or error}")
        if answers.got_through(answer.stdout, answer.stderr, answer.returncode):
            return answer
        silence, pause_s = Silence(said(command, answer)), random.uniform(*PAUSE_S)
        now = time.monotonic()
        if number == TRIES or now + pause_s + (now - began) > deadline:  # Slurm has been patient itself
            break
        time.sleep(pause_s)
    assert silence is not None
    return silence


def said(command: Sequence[str], answer: subprocess.CompletedProcess[str]) -> str:
    """A command and the words of its answer, as one clause."""
    words = answers.printable(" ".join((answer.stderr + " " + answer.stdout).split()))
    shown = words if len(words) <= MOST_WORDS else f"{words[:MOST_WORDS]}…"
    return f"`{_shown(command)}` says {shown!r}" if words else f"`{_shown(command)}` says nothing"


def run(*command: str, patience_s: float | None = PATIENCE_S) -> subprocess.CompletedProcess[str] | None:
    """Run a command of Slurm in its clean environment; None if it is not there, or takes longer than `patience_s`."""
    try:
        return _run(command, patience_s)
    except (OSError, subprocess.TimeoutExpired):
        return None


def _run(command: Sequence[str], patience_s: float | None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",  # as in the names of files
        timeout=patience_s,
        env=environment(),
    )


def _shown(command: Sequence[str]) -> str:
    """A command without its options."""
    return " ".join(word for word in command if not word.startswith("-"))


def _ask(*command: str) -> str | None:
    answer = ask(*command)
    return None if isinstance(answer, Silence) or answer.returncode else answer.stdout
