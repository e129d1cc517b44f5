"""One attempt on a run, with its entry in the ledger: whatever ends it gets a cause."""

import re
import traceback
from collections.abc import Callable
from typing import Any, Literal

from fsr.config import TrainConfig
from fsr.errors import NotFiniteError, UserError
from fsr.run import Run
from launch.full_disk import disk_is_full, wait_for_space
from launch.ledger import Cause, Ledger
from launch.preemption import StopRequest
from launch.ranks import Ranks
from launch.slot import LocalSlot, SlurmSlot

Slot = LocalSlot | SlurmSlot
# What drivers and kernels say when a device fails, not the program.
HARDWARE = re.compile(
    r"\b(ECC|NVLink|Xid)\b|uncorrectable|devices? (is |are )?(busy or )?unavailable|GPU (is|has) (lost|fallen)|"
    "unknown error|Input/output error|Bus error|Stale file handle",
    re.IGNORECASE,
)
Train = Callable[..., Literal["finished", "stopped", "pruned"]]


def train(config: TrainConfig, run: Run, **hooks: Any) -> Literal["finished", "stopped", "pruned"]:
    """The method's training loop, imported inside the task: nothing else in launch needs torch."""
    from fsr import distributed
    from fsr.train import train

    outcome = train(config, run, **hooks)
    distributed.stop()  # the next trial of this process has a process group of its own
    return outcome


def attempt(
    train: Train,
    config: TrainConfig,
    run: Run,
    stop: StopRequest,
    slot: Slot,
    ranks: Ranks,
    prune: Callable[[int, dict[str, float]], bool],
) -> Literal["finished", "stopped", "pruned", "broken"]:
    """Train a run as far as it goes (rank 0; the run's lock must be held).

    Does not return from a stop that Slurm is to bring back. "broken" is an exception, whose traceback is in the run's
    error.txt; a UserError is raised on.
    """
    ledger = Ledger(run)
    try:
        ledger.begin(slot.task, slot.restart, slot.node, ranks.count)
        end = "finished"
        if run.result() is None:  # else a worker was killed between the end of the training and its word of it
            ranks.lead(config, run)
            end = train(config, run, stop_requested=stop, prune=prune)
        if end == "stopped":
            cause = slot.cause_of_stop(stop)
            ledger.end(cause)
            slot.leave(cause)
        else:
            ledger.end(end)
        return end
    except UserError as error:
        ledger.end("cancelled", str(error))
        raise
    except Exception as error:
        if disk_is_full(error) and not wait_for_space(run.folder, stop):
            slot.leave(slot.cause_of_stop(stop))  # no word can be written; who comes next asks Slurm what ended this
            return "stopped"
        (run.folder / "error.txt").write_text(traceback.format_exc())
        cause, detail = cause_of(error)
        if cause == "killed":  # another rank went first, and knows why
            cause, detail = ranks.cause_of_others() or (cause, detail)
        ledger.end(cause, detail)
        return "broken"


def cause_of(error: Exception) -> tuple[Cause, str]:
    """The ledger's word for an exception of the training, and what it said."""
    said = " ".join(str(error).split())[:300]
    if isinstance(error, NotFiniteError):
        return "not finite", said
    if disk_is_full(error):
        return "disk full", said
    if re.search("peer|ProcessGroup|NCCL|TCPStore", said):  # what the others see when a rank is gone
        return "killed", f"another rank is gone: {said}"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, unknown here
        return "out of memory", said
    if HARDWARE.search(said):
        return "node", f"{type(error).__name__}: {said}"
    return "exception", f"{type(error).__name__}: {said}"
