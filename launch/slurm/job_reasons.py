"""Whether a job in the queue will do its work: a table of Slurm's states and reasons, and pure functions of it.

A job that cannot start by itself is no worker: others are submitted in its place, and the user hears what mends it.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from enum import Enum

from launch.slurm.answers import QueuedJob
from launch.slurm.job_states import STAGES, Stage


class Outlook(Enum):
    """What becomes of a job in the queue if nobody does anything about it."""

    WORKS = "works"
    """It works, or will: what it waits for comes by itself, or when the administrators have ended their work."""
    ENDS = "ends"
    """It is being ended."""
    RELEASE = "release"
    """Somebody holds it; it starts when it is released."""
    ASK = "ask"
    """An administrator holds it, and only one can release it."""
    CONTINUE = "continue"
    """It holds its node, and its processes are stopped until they are told to continue."""
    NEVER = "never"
    """It asks for what it cannot get."""


# By state, where the state alone tells it; in any other one, known or not, a job works or will.
STATES = {
    **{state: Outlook.ENDS for state, stage in STAGES.items() if stage in (Stage.ENDING, Stage.ENDED)},
    **dict.fromkeys(("REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"), Outlook.RELEASE),
    "STOPPED": Outlook.CONTINUE,
}
# By reason of a job that waits: the first pattern that fits the whole of it counts; what is in none of them passes.
# Limits on all jobs together (QOSGrp…, AssocGrp…, …PerUser, …JobsLimit) pass as well: other jobs end.
REASONS = {
    "JobHeldAdmin": Outlook.ASK,
    "JobHeldUser|JobHoldMaxRequeue|.*requeued.*held.*|ReservationDeleted|BurstBufferOperation": Outlook.RELEASE,
    "DependencyNeverSatisfied|BadConstraints|PartitionTimeLimit|PartitionNodeLimit|PartitionConfig": Outlook.NEVER,
    "ReservationInvalid": Outlook.NEVER,  # since 23.11
    "InvalidAccount|InvalidQOS|AccountNotAllowed|QOSNotAllowed|MaxMemPerLimit|DeadLine": Outlook.NEVER,
    "(QOS|Assoc)Max.*Per(Job|Node)(Limit)?|QOSMin.*": Outlook.NEVER,
}


# Why a job waits that will start by itself, in words, by the same rule.
WAITS = {
    "Priority": "jobs of higher priority go first",
    "Resources": "it is the next, as soon as nodes are free",
    "BeginTime": "its time has not come; after a requeue that takes about two minutes",
    "Dependency": "another job has to end first",
    "JobArrayTaskLimit": "as many of its array run as may",
    "Licenses": "licences are taken",
    "Reservation": "its reservation has not begun",
    "ReqNodeNotAvail.*|NodeDown": "nodes that it needs are down, draining or reserved",
    "Constraints": "no node has now the features that it needs",
    "MaxPoweredUpNodes": "as many nodes are powered up as may be",
    "Partition(Down|Inactive)": "the partition takes no jobs for now",
    "(QOS|Assoc).*(PerUser|PerAccount|JobsLimit).*|(QOS|Assoc)Grp.*": "your jobs, or your group's, use all they may",
    "Prolog|Cleaning": "its node is being made ready",
}


def outlook(job: QueuedJob) -> Outlook:
    """What becomes of a job."""
    if job.state in STATES:
        return STATES[job.state]
    if job.state == "PENDING":
        for pattern, found in REASONS.items():
            if re.fullmatch(pattern, job.reason.replace(" ", "_"), re.IGNORECASE):
                return found
    return Outlook.WORKS


def workers(jobs: Mapping[str, QueuedJob]) -> dict[str, QueuedJob]:
    """The jobs that work or will."""
    return {job_id: job for job_id, job in jobs.items() if outlook(job) is Outlook.WORKS}


def stuck(jobs: Mapping[str, QueuedJob]) -> dict[str, QueuedJob]:
    """The jobs that stay in the queue and do not work until somebody does something about them."""
    ends = (Outlook.WORKS, Outlook.ENDS)
    return {job_id: job for job_id, job in jobs.items() if outlook(job) not in ends}


def remedy(found: Outlook, ids: Collection[str]) -> str | None:
    """What mends jobs with this outlook, in words; None where nothing has to be done."""
    cancel = f"scancel {' '.join(ids)}"
    return {
        Outlook.RELEASE: f"scontrol release {','.join(ids)}, or {cancel}",
        Outlook.ASK: f"ask your administrators to release them, or {cancel}",
        Outlook.CONTINUE: f"scancel --signal=CONT {' '.join(ids)}, or {cancel}",
        Outlook.NEVER: f"{cancel}, and ask for what the cluster can give",
    }.get(found)


def waits(jobs: Mapping[str, QueuedJob]) -> list[str]:
    """Why jobs wait that will start by themselves, a sentence for each reason that has one."""
    reasons = Counter(job.reason for job in workers(jobs).values() if job.state == "PENDING")
    said = []
    for reason, number in sorted(reasons.items()):
        words = next((text for pattern, text in WAITS.items() if re.fullmatch(pattern, reason.replace(" ", "_"))), None)
        if words:
            said.append(f"{number} {'job waits' if number == 1 else 'jobs wait'} ({reason}): {words}")
    return said


def remedies(jobs: Mapping[str, QueuedJob]) -> list[str]:
    """A sentence for each reason why jobs are stuck, with what mends it."""
    groups: dict[tuple[str, Outlook], list[str]] = {}
    for job_id, job in stuck(jobs).items():
        groups.setdefault((shown(job), outlook(job)), []).append(job_id)
    return [
        f"{'job' if len(ids) == 1 else 'jobs'} {', '.join(ids)} cannot work by "
        f"{'itself' if len(ids) == 1 else 'themselves'}, {what}: {remedy(found, ids)}"
        for (what, found), ids in groups.items()
    ]


def shown(job: QueuedJob) -> str:
    """State and reason of a job: pending (Priority)."""
    state = job.state.lower()
    told = job.state in ("RUNNING", "COMPLETING") or job.reason in ("None", "(null)", "")
    return state if told else f"{state} ({job.reason})"


def summary(jobs: Mapping[str, QueuedJob]) -> str:
    """How many jobs are in which state, and why: 2 running, 4 pending (Priority)."""
    numbers = Counter(shown(job) for job in jobs.values())
    return ", ".join(f"{number} {what}" for what, number in sorted(numbers.items())) or "no worker"
