"""One attempt on a run, with its entry in the attempt log: whatever ends it gets a cause."""

import traceback
from collections.abc import Callable
from typing import Literal

from fsr.config import TrainConfig
from fsr.errors import UserError
from fsr.files import write_atomically
from fsr.run import Run
from launch.slurm.environment import Environment
from launch.slurm.error_causes import cause_of_error
from launch.state.attempts import AttemptLog, Cause
from launch.state.full_disk import disk_is_full, wait_for_space
from launch.state.stop import StopRequest
from launch.worker import method
from launch.worker.rendezvous import Rendezvous

Prune = Callable[[int, dict[str, float]], bool]
AttemptEnd = Literal["finished", "stopped", "pruned", "broken"]


def never(step: int, scores: dict[str, float]) -> bool:
    """The answer for a run that nobody prunes."""
    return False


def attempt(
    config: TrainConfig, run: Run, stop: StopRequest, environment: Environment, rendezvous: Rendezvous, prune: Prune
) -> AttemptEnd:
    """Train a run as far as it goes (rank 0; the run's lock must be held).

    Does not return from a stop that Slurm is to bring back. "broken" is an exception, whose traceback is in the run's
    error.txt; a UserError is raised on.
    """
    log = AttemptLog(run)
    try:
        log.begin(environment.job, environment.restarts, environment.node, rendezvous.count)
        end: Literal["finished", "stopped", "pruned"] = "finished"
        if run.result() is None:  # else a worker was killed between the end of the training and its entry in the log
            rendezvous.announce(config, run)
            end = method.train(config, run, stop_requested=stop, prune=prune)
        if end == "stopped":
            cause = environment.cause_of_stop(stop)
            log.end(cause)
            environment.leave(cause)
        else:
            log.end(end)
        return end
    except UserError as error:
        log.end("cancelled", str(error))
        raise
    except Exception as error:
        if disk_is_full(error) and not wait_for_space(run.folder, stop):
            # No cause can be written; whoever comes next asks Slurm what ended this attempt.
            environment.leave(environment.cause_of_stop(stop))
            return "stopped"
        write_atomically(run.folder / "error.txt", traceback.format_exc().encode())
        log.end(*_known_cause(error, rendezvous))
        return "broken"


def follow(stop: StopRequest, rendezvous: Rendezvous) -> None:
    """Train what rank 0 announces, until it announces the end (other ranks)."""
    for config, run in rendezvous.announced():
        try:
            method.train(config, run, stop_requested=stop, prune=never)
        except Exception as error:
            rendezvous.report_failure(*cause_of_error(error))
            write_atomically(run.folder / f"error_rank{rendezvous.rank}.txt", traceback.format_exc().encode())
            raise


def _known_cause(error: Exception, rendezvous: Rendezvous) -> tuple[Cause, str]:
    """Cause and detail of an exception; where another rank failed first, it knows better."""
    cause, detail = cause_of_error(error)
    return (rendezvous.reported_failure() if cause == "killed" else None) or (cause, detail)
