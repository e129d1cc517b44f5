"""One attempt on a run, with its entry in the attempt_log: whatever ends it gets a cause."""

import re
import traceback
from collections.abc import Callable
from typing import Any, Literal

from fsr.config import TrainConfig
from fsr.errors import NotFiniteError, UserError
from fsr.run import Run
from launch.slurm.environment import LocalEnvironment, SlurmEnvironment
from launch.state.attempts import AttemptLog, Cause
from launch.state.stop import StopRequest
from launch.worker.full_disk import disk_is_full, wait_for_space
from launch.worker.rendezvous import Rendezvous

Environment = LocalEnvironment | SlurmEnvironment
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
    environment: Environment,
    ranks: Rendezvous,
    prune: Callable[[int, dict[str, float]], bool],
) -> Literal["finished", "stopped", "pruned", "broken"]:
    """Train a run as far as it goes (rank 0; the run's lock must be held).

    Does not return from a stop that Slurm is to bring back. "broken" is an exception, whose traceback is in the run's
    error.txt; a UserError is raised on.
    """
    attempt_log = AttemptLog(run)
    try:
        attempt_log.begin(environment.task, environment.restart, environment.node, ranks.count)
        end = "finished"
        if run.result() is None:  # else a worker was killed between the end of the training and its word of it
            ranks.lead(config, run)
            end = train(config, run, stop_requested=stop, prune=prune)
        if end == "stopped":
            cause = environment.cause_of_stop(stop)
            attempt_log.end(cause)
            environment.leave(cause)
        else:
            attempt_log.end(end)
        return end
    except UserError as error:
        attempt_log.end("cancelled", str(error))
        raise
    except Exception as error:
        if disk_is_full(error) and not wait_for_space(run.folder, stop):
            environment.leave(
                environment.cause_of_stop(stop)
            )  # no word can be written; who comes next asks Slurm what ended this
            return "stopped"
        (run.folder / "error.txt").write_text(traceback.format_exc())
        cause, detail = cause_of(error)
        if cause == "killed":  # another rank went first, and knows why
            cause, detail = ranks.cause_of_others() or (cause, detail)
        attempt_log.end(cause, detail)
        return "broken"


def cause_of(error: Exception) -> tuple[Cause, str]:
    """The attempt_log's word for an exception of the training, and what it said."""
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
