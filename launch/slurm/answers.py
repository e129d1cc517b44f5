"""What the answers of scontrol, squeue, sacct, sinfo and sacctmgr mean. Pure functions of their text."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from launch.slurm.job_states import GONE, Stage, stage

# What a command says that did not get through, some of them with exit code 0 (versions 20.11 to 25.05). A job that
# Slurm does not know is an answer.
NOT_THROUGH = re.compile(
    r"unable to contact|unable to establish|socket timed out|timed out on send|rate limit"
    r"|connection refused|connection timed out|(connect|receive|send|communication connection|transport) failure"
    r"|zero bytes were transmitted|protocol authentication|authentication (failure|error)|standby mode"
    r"|temporarily (unavailable|unable|disabled)|backing off|no route to host|problem talking to the database"
    r"|persist\w*_conn_open|slurm_load_\w+ error(?!: invalid)|munge\w* (decode|encode) failed"
    r"|unexpected message received",
    re.IGNORECASE,
)
# The comment comes last, as it may hold anything.
QUEUE_FORMAT = "%i|%T|%r|%j|%k"
QUEUE_HEADER = re.compile(r"JOBID *\|STATE *\|REASON *\|NAME *\|COMMENT *$")
# What slurmstepd says in a job's log of a step that was killed for its memory: by the kernel (cgroups), in 22.05 and
# from 23.02 on; and by Slurm itself where it counts (JobAcctGatherParams=OverMemoryKill).
OUT_OF_MEMORY = (
    r"Detected \d+ oom-kill event\(s\) in StepId={step}(?!\d)",
    r"Detected \d+ oom_kill events? in StepId={step}(?!\d)",
    r"StepId={step} exceeded (virtual )?memory limit",
)
QUEUE_ROW = re.compile(r"\d+(_\d+|_\[[^|]*\]|\+\d+)?\|")
ASSOCIATION = ("User", "Account", "Partition", "MaxSubmitJobs", "GrpSubmitJobs", "DefaultQOS")
QOS = ("Name", "MaxSubmitPU", "MaxSubmitPA", "GrpSubmitJobs")


@dataclass(frozen=True)
class Job:
    """One job or array task as the controller sees it."""

    state: str
    """Slurm's word, such as RUNNING; GONE if Slurm knows no such job (any more)."""
    restarts: int = 0
    """How often Slurm has requeued it."""
    preempted: bool = False
    """It was told to go because a job of higher priority wants its nodes."""

    @property
    def waits_or_runs(self) -> bool:
        """Whether it will still do, or is doing, its work. It may in a state that is unknown here."""
        return stage(self.state) not in (Stage.ENDING, Stage.ENDED)


@dataclass(frozen=True)
class QueuedJob:
    """One job or array task in the queue."""

    state: str
    """Slurm's word, such as PENDING."""
    reason: str = "None"
    """Why it waits, in Slurm's word, such as Priority; `None` where it does not say."""


@dataclass(frozen=True)
class Limit:
    """A limit of the accounts on the jobs and array tasks in the queue."""

    number: int
    whose: str
    """Who may have no more than these."""
    filters: tuple[str, ...]
    """Options of squeue that leave the jobs which count."""
    of_user: bool = True
    """Whether only this user's jobs count."""
    name: str = ""
    """Slurm's name for it, and where it is set."""


def got_through(stdout: str, stderr: str, exit_code: int) -> bool:
    """Whether a command reached the daemon that it asked. Some print why not and end with exit code 0.

    What stands on stderr beside an answer is no part of it: many clusters' commands warn of their configuration, and of
    a limit of rate that they have waited out.
    """
    heard = stdout if exit_code == 0 and stdout.strip() else stdout + stderr
    if "Slurmctld(" in heard:
        return controller_is_up(heard)
    return not NOT_THROUGH.search(heard)


def controller_is_up(text: str) -> bool:
    """Whether the primary or a backup controller is up, of `scontrol ping`, whatever its exit code."""
    return bool(re.search(r"^Slurmctld\(.*\) at .* (is|are) .*\bUP\b", text, re.MULTILINE))


def is_unconfigured(text: str) -> bool:
    """Whether a command says that this machine belongs to no cluster: nobody has told it of one."""
    return "Could not establish a configuration source" in text


def printable(text: str) -> str:
    """Foreign text for a terminal: what would command it (escapes, bells) is shown, not sent."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def is_of(identity: str, name: str, comment: str) -> bool:
    """Whether a job is of the folder with this id. A site may rewrite the one or the other."""
    return (name.startswith("fsr-") and name.endswith(f"-{identity}")) or identity in comment.split()


def job(line: str, identity: str | None = None) -> Job | None:
    """The job of one line of `scontrol show job -o`; GONE if it is not of this identity. None if it shows none."""
    found = fields(line)
    if "JobId" not in found or "JobState" not in found or not found.get("Restarts", "0").isdigit():
        return None
    comment = re.search(r" Comment=(.*?)(?= \w+=|$)", line)
    if identity is not None and not is_of(identity, found.get("JobName", ""), comment[1] if comment else ""):
        return Job(GONE)
    return Job(
        state=found["JobState"],
        restarts=int(found.get("Restarts", 0)),
        # Both are ISO times or words; the time of an earlier preemption stays there after the job came back.
        preempted=found.get("StartTime", "") <= found.get("PreemptTime", "") < "A",
    )


def queue_rows(listing: str) -> list[list[str]] | None:
    """Id, state, reason, name and comment of each job, of squeue with QUEUE_FORMAT and its header.

    None unless the answer is whole: the header is there, an error is not, and the last line has its end.
    """
    # A line a cluster where several are asked; the header follows each.
    lines = [line for line in listing.splitlines() if not line.startswith("CLUSTER:")]
    if not any(QUEUE_HEADER.match(line) for line in lines) or not listing.endswith("\n"):
        return None
    others = [line for line in lines if not QUEUE_ROW.match(line)]  # headers; a comment's second line
    if any(NOT_THROUGH.search(line) for line in others):
        return None
    rows = [line.split("|", 4) for line in lines if QUEUE_ROW.match(line)]
    return rows if all(len(row) == 5 for row in rows) else None


def queued_jobs(rows: Sequence[Sequence[str]], identity: str) -> dict[str, QueuedJob]:
    """By id: the jobs of `queue_rows` that are of the folder with this id."""
    return {
        job_id: QueuedJob(state.strip(), reason.strip())
        for job_id, state, reason, name, comment in rows
        if is_of(identity, name.strip(), comment)
    }


def excluded(line: str) -> str | None:
    """The nodes that a job of `scontrol show job -o` is kept off, as Slurm writes them."""
    nodes = fields(line).get("ExcNodeList", "(null)")
    return None if nodes in ("", "(null)") else nodes


def names(listing: str) -> set[str]:
    """The names in a list of one column of squeue or sinfo; where clusters are named, each begins with a line."""
    return {line.strip() for line in listing.splitlines() if line.strip() and not line.startswith("CLUSTER:")}


def past_states(listing: str, identity: str | None = None) -> list[str] | None:
    """How each start of a job ended, oldest first, of `sacct --duplicates --format=State,JobName`, the name optional.

    None if it knows nothing. Where a name has the identity, only the lines of such names count.
    """
    # CANCELLED comes with the user who did it: CANCELLED by 1000. Where a job shrinks, its start has another line.
    lines = [line.partition("|") for line in listing.splitlines() if line.strip() and not line.startswith("RESIZING")]
    own = [line for line in lines if identity is not None and is_of(identity, line[2], "")]
    words = [line[0].split()[0] for line in own or lines if line[0].strip()]
    return words if words and all(re.fullmatch(r"[A-Z_]+\+?", word) for word in words) else None


def ran_out_of_memory(log: str, step: str) -> bool:
    """Whether a job's log says that a step (`12.0`) was killed for the memory it used."""
    return any(re.search(pattern.format(step=re.escape(step)), log) for pattern in OUT_OF_MEMORY)


def node_is_up(listing: str) -> bool | None:
    """Whether a node can work, of `sinfo --format=%T`; None if it knows no such node."""
    if not re.match(r"[a-zA-Z_]+[*~#!%$@^+-]*\s", listing + "\n"):
        return None
    return not listing.split()[0].lower().startswith(("down", "drain", "fail", "unknown"))


def settings(text: str) -> dict[str, str]:
    """The settings of `scontrol show config`."""
    return dict(re.findall(r"^(\w+)\s*= (.*?)\s*$", text, re.MULTILINE))


def partitions(text: str) -> dict[str, dict[str, str]]:
    """Every partition's settings by name, of `scontrol show partition -o`."""
    rows = (fields(line) for line in text.splitlines() if line.startswith("PartitionName="))
    return {row["PartitionName"]: row for row in rows}


def time_limit(partition: Mapping[str, str]) -> str | None:
    """The limit of a partition's jobs that ask for none, as Slurm writes it; None if there is none."""
    limits = (partition.get(name, "NONE") for name in ("DefaultTime", "MaxTime"))
    limit = next((limit for limit in limits if limit != "NONE"), "UNLIMITED")
    return limit if limit[:1].isdigit() else None


def preempt_mode(
    settings: Mapping[str, str], partition: Mapping[str, str] | None, qos: Mapping[str, str] | None
) -> str | None:
    """What preemption does to a job of this partition and QOS: OFF, CANCEL, REQUEUE, SUSPEND; None if it is unknown.

    Which of them says so depends on PreemptType (slurm.conf(5)); the cluster's own mode holds where it says nothing.
    """
    kind = settings.get("PreemptType")
    if kind is None:
        return None
    asked = {"preempt/qos": qos, "preempt/partition_prio": partition}
    if kind not in asked:
        return "OFF"
    row = asked[kind]
    if row is None:
        return None
    mode = row.get("PreemptMode", "").upper()
    mode = settings.get("PreemptMode", "OFF") if mode in ("", "CLUSTER") else mode
    # GANG and WITHIN tell who shares and who preempts; what happens to the job is said beside them.
    return next((word for word in mode.split(",") if word not in ("GANG", "WITHIN")), "OFF")


def rows(listing: str, names: Sequence[str]) -> list[dict[str, str]]:
    """The rows of an answer of sacctmgr with --parsable2, by the names of their fields."""
    lines = (line.split("|") for line in listing.splitlines())
    return [dict(zip(names, values, strict=True)) for values in lines if len(values) == len(names)]


def submit_limits(
    associations: Sequence[Mapping[str, str]],
    qos_rows: Sequence[Mapping[str, str]],
    user: str,
    account: str,
    partition: str | None,
    qos: str | None,
    qos_of_partitions: Mapping[str, str],
    above: Sequence[tuple[Mapping[str, str], Sequence[str]]] = (),
) -> list[Limit]:
    """The limits that hold for a user's jobs of this account, partition and QOS.

    As Slurm does, an association of the partition goes before one of all partitions, the partition's QOS before the
    job's, and a QOS's limit before the association's of the same kind.

    Args:
        associations: rows of ASSOCIATION of the account, its users' and its own.
        qos_rows: rows of QOS.
        qos: the one asked for; the user's default one if None.
        qos_of_partitions: by name of the partition.
        above: the account and those above it, each with the names of all accounts whose jobs count for it.
    """
    asked = partition.split(",") if partition else []
    own = [row for row in associations if row["User"] == user and row["Partition"] in ("", *asked)]
    association = max(own, key=lambda row: bool(row["Partition"]), default=None)
    of_account = next((row for row in associations if not row["User"]), None)
    name = qos or (association or {}).get("DefaultQOS") or "normal"
    names = list(dict.fromkeys([*(qos_of_partitions.get(one, "N/A") for one in asked), name]))
    rules = {row["Name"]: row for row in qos_rows}
    found: dict[str, Limit] = {}

    def take(
        kind: str, row: Mapping[str, str], column: str, whose: str, filters: tuple[str, ...], of_user: bool = True
    ) -> None:
        number = row.get(column, "")
        if number.isdigit():
            found.setdefault(kind, Limit(int(number), whose, filters, of_user, column))

    for name in names:
        row, one = rules.get(name, {}), (f"--qos={name}",)
        take("user", row, "MaxSubmitPU", f"you in QOS {name}", one)
        both = (*one, f"--account={account}")
        take("account", row, "MaxSubmitPA", f"account {account} in QOS {name}", both, False)
        take("group", row, "GrpSubmitJobs", f"all users of QOS {name} together", one, False)
    if association:
        place = (f"--account={account}", *([f"--partition={p}"] if (p := association["Partition"]) else []))
        take("user", association, "MaxSubmitJobs", f"your account {account}", place)
        take("own", association, "GrpSubmitJobs", f"your account {account}", place)
    of_qos = "group" in found
    for row, members in [*above, *([(of_account, (account,))] if of_account else [])]:
        name = row.get("Account", account)
        kind = "group" if of_qos else f"group {name}"
        whose = f"all users of account {name} together"
        take(kind, row, "GrpSubmitJobs", whose, (f"--account={','.join(members)}",), False)
    return list(found.values())


def fields(line: str) -> dict[str, str]:
    """The NAME=VALUE pairs of one line of scontrol. Of a name that comes twice, the first is Slurm's own.

    Later on it may be part of what users wrote: of a path, a comment or, in newer versions, the command that submitted.
    """
    return dict(reversed(re.findall(r"(?<!\S)(\w+)=(\S*)", line)))
