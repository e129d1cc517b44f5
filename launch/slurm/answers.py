"""What the answers of scontrol, squeue, sacct, sinfo and sacctmgr mean. Pure functions of their text."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# States of a job that has ended. COMPLETING is left out: such a job's ranks are being ended.
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
    """How often Slurm has requeued it."""
    preempted: bool = False
    """It was told to go because a job of higher priority wants its nodes."""

    @property
    def waits_or_runs(self) -> bool:
        """Whether it will still do, or is doing, its work."""
        return self.state not in (GONE, *ENDED) and self.state != "COMPLETING"


def job(line: str) -> Job:
    """The job of one line of `scontrol show job -o`."""
    found = fields(line)
    return Job(
        state=found["JobState"],
        restarts=int(found.get("Restarts", 0)),
        # Both are ISO times or words; the time of an earlier preemption stays there after the job came back.
        preempted=found.get("StartTime", "") <= found.get("PreemptTime", "") < "A",
    )


def job_states(listing: str, identity: str) -> dict[str, str]:
    """State by id of the jobs whose name or comment has this identity, of `squeue --array --format=%i|%T|%j|%k`."""
    rows = (line.split("|", 3) for line in listing.splitlines() if line.count("|") >= 3)  # not CLUSTER: name
    return {
        job_id: state
        for job_id, state, name, comment in rows
        if (name.startswith("fsr-") and name.endswith(f"-{identity}")) or identity in comment.split()
    }


def excluded(line: str) -> str | None:
    """The nodes that a job of `scontrol show job -o` is kept off, as Slurm writes them."""
    nodes = fields(line).get("ExcNodeList", "(null)")
    return None if nodes in ("", "(null)") else nodes


def names(listing: str) -> set[str]:
    """The names in a list of one column of squeue or sinfo; where clusters are named, each begins with a line."""
    return {line.strip() for line in listing.splitlines() if line.strip() and not line.startswith("CLUSTER:")}


def past_states(listing: str) -> list[str] | None:
    """How each start of a job ended, oldest first, of `sacct --duplicates --format=State`; None if it knows nothing."""
    # CANCELLED comes with the user who did it: CANCELLED by 1000.
    return [line.split()[0] for line in listing.splitlines() if line.strip()] or None


def node_is_up(listing: str) -> bool | None:
    """Whether a node can work, of `sinfo --format=%T`; None if it knows no such node."""
    if not listing.strip():
        return None
    return not listing.split()[0].lower().startswith(("down", "drain", "fail", "unknown"))


def settings(text: str) -> dict[str, str]:
    """The settings of `scontrol show config`."""
    return dict(re.findall(r"^(\w+)\s*= (.*?)\s*$", text, re.MULTILINE))


def partitions(text: str) -> dict[str, dict[str, str]]:
    """Every partition's settings by name, of `scontrol show partition -o`."""
    rows = (fields(line) for line in text.splitlines() if line)
    return {row["PartitionName"]: row for row in rows}


def time_limit(partition: dict[str, str]) -> str | None:
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


def submit_limit(listing: str) -> int | None:
    """The smallest limit of `sacctmgr show assoc format=MaxSubmitJobs,GrpSubmitJobs`, if it sets one."""
    numbers = [int(number) for number in re.findall(r"\d+", listing)]
    return min(numbers) if numbers else None


def fields(line: str) -> dict[str, str]:
    """The NAME=VALUE pairs of one line of scontrol."""
    return dict(re.findall(r"(\w+)=(\S*)", line))
