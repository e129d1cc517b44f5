"""What Slurm's words for the state of a job mean: one table for 22.05 to 25.11, whose commands show one word a job.

A word that is not in it, of a later version say, is taken neither for an end nor for a wait: such a job may be at work,
so its trial goes to nobody else, no worker is submitted in its place, and it does not end itself.
"""

from enum import Enum


class Stage(Enum):
    """How far a job has come."""

    WAITS = "waits"
    """It has no processes yet, or none any more until it starts again."""
    WORKS = "works"
    """Its processes are there, be they stopped."""
    ENDING = "ending"
    """Its processes are being ended, or have been, and Slurm clears up after them."""
    ENDED = "ended"
    """Nothing is left of it."""
    UNKNOWN = "unknown"
    """Slurm's word is none that is known here."""


GONE = "GONE"  # our word for a job that Slurm has forgotten
_WORDS = {
    Stage.WAITS: "PENDING CONFIGURING POWER_UP_NODE REQUEUED REQUEUE_FED REQUEUE_HOLD SPECIAL_EXIT RESV_DEL_HOLD"
    " EXPEDITING",  # of --requeue=expedite, since 25.11
    Stage.WORKS: "RUNNING RESIZING SIGNALING SUSPENDED STOPPED UPDATE_DB",
    Stage.ENDING: "COMPLETING STAGE_OUT LAUNCH_FAILED RECONFIG_FAIL",
    Stage.ENDED: "COMPLETED FAILED TIMEOUT NODE_FAIL OUT_OF_MEMORY CANCELLED PREEMPTED BOOT_FAIL DEADLINE REVOKED"
    f" {GONE}",
}
STAGES = {word: stage for stage, words in _WORDS.items() for word in words.split()}


def stage(state: str) -> Stage:
    """How far a job in this state has come."""
    return STAGES.get(state, Stage.UNKNOWN)


def may_work(state: str) -> bool:
    """Whether processes of a job in this state may be at work: as long as it is unknown, they may."""
    return stage(state) in (Stage.WORKS, Stage.UNKNOWN)
