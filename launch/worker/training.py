"""One attempt on a run, with its entry in the attempt log: whatever ends it gets a cause."""

import time
import traceback
from collections.abc import Callable, Iterable
from typing import Literal

from fsr.config import TrainConfig
from fsr.errors import UnreadableError, UserError
from fsr.files import write_atomically
from fsr.heartbeat import HEARTBEAT
from fsr.lock import FileLock
from fsr.run import Run
from fsr.system_errors import shortage
from launch.slurm.environment import Environment
from launch.slurm.error_causes import cause_of_error, place_of_error
from launch.state.attempts import AttemptLog, Cause
from launch.state.full_disk import wait_for_space
from launch.state.stop import StopRequest
from launch.worker import method
from launch.worker.rendezvous import Rendezvous

Prune = Callable[[int, dict[str, float | None]], bool]
SIGNAL_S = (
    1.0  # Slurm signals the processes of a step one after the other: another rank's or loader's death comes first
)
# A process that is being killed may live on for a while, on a disk that hangs say; Slurm gives it KillWait and more.
ENDING_S = 300.0
AttemptEnd = Literal["finished", "stopped", "pruned", "broken"]


def never(step: int, scores: dict[str, float | None]) -> bool:
    """The answer for a run that nobody prunes."""
    return False


def attempt(
    config: TrainConfig, run: Run, stop: StopRequest, environment: Environment, rendezvous: Rendezvous, prune: Prune
) -> AttemptEnd:
    """Train a run as far as it goes (rank 0; the run's lock must be held).

    Does not return from a stop that Slurm is to bring back. "broken" is an exception, whose traceback is in the run's
    error.txt; a UserError is raised on, and of a limit (ulimit -n) one is made. So is that of a folder that belongs to
    a run with other settings.
    """
    if run.result_file.exists():
        run.check(config)  # before it is taken for this run's
    if not wait_until_free(FileLock(run.lock_file), stop):
        environment.leave(environment.cause_of_stop(stop))
        return "stopped"
    log = AttemptLog(run)
    HEARTBEAT.start("starting")
    try:
        log.begin(environment.job, environment.restarts, environment.node, rendezvous.count)
        end: Literal["finished", "stopped", "pruned"] = "finished"
        if run.result() is None:  # else a worker was killed between the end of the training and its entry in the log
            rendezvous.announce(config, run)
            end = method.train(config, run, stop_requested=HEARTBEAT.between_steps(stop), prune=prune)
        if end == "stopped":
            HEARTBEAT.idle("saved")
            cause = environment.cause_of_stop(stop)
            log.end(cause)
            environment.leave(cause)
        else:
            log.end(end)
        return end
    except UserError as error:
        log.end("cancelled", str(error), place_of_error(error))
        raise
    except Exception as error:
        HEARTBEAT.idle("broken")
        cause, detail = _known_cause(error, rendezvous)
        if cause == "disk full" and not wait_for_space(run.folder, stop):
            # No cause can be written; whoever comes next asks Slurm what ended this attempt.
            environment.leave(environment.cause_of_stop(stop))
            return "stopped"
        if cause == "killed" and _is_stop(stop):
            cause = environment.cause_of_stop(stop)
            log.end(cause, detail)
            environment.leave(cause)
            return "stopped"
        limit = shortage(error) if cause == "exception" else None
        if limit:  # the next attempt would meet it, too
            log.end("cancelled", limit)
            raise UserError(limit) from error
        write_atomically(run.folder / "error.txt", traceback.format_exc().encode())
        log.end(cause, detail, place_of_error(error))
        return "broken"
    finally:
        HEARTBEAT.idle("between attempts")


def wait_until_free(lock: FileLock, stop: StopRequest, patience_s: float = ENDING_S) -> bool:
    """Wait for a process of an earlier attempt that holds a lock and is still ending: that is no mistake of the user.

    False if a stop is requested meanwhile. After `patience_s` it is true as well: who takes the lock then says whose it
    is.
    """
    if not lock.path.exists():
        return True
    HEARTBEAT.idle("waiting for an earlier process to end")
    deadline, told = time.monotonic() + patience_s, False
    while not lock.try_acquire(1.0) and time.monotonic() < deadline:
        if stop():
            return False
        if not told:
            print(f"waiting for process {lock.holder()} on {lock.host()}, which holds {lock.path}", flush=True)
            told = True
    lock.release()
    return True


def follow(stop: StopRequest, rendezvous: Rendezvous) -> None:
    """Train what rank 0 announces, until it announces the end (other ranks)."""
    for config, run in rendezvous.announced():
        HEARTBEAT.start("starting")
        try:
            method.train(config, run, stop_requested=HEARTBEAT.between_steps(stop), prune=never)
            HEARTBEAT.idle("between attempts")
        except UserError as error:
            if isinstance(error.__cause__, UnreadableError):  # raised on this rank, and then shared
                rendezvous.report_lack()
            if rendezvous.end_is_announced():  # all ranks raised it, and rank 0 tells it
                return
            raise
        except Exception as error:
            rendezvous.report_failure(*cause_of_error(error))
            write_atomically(run.folder / f"error_rank{rendezvous.rank}.txt", traceback.format_exc().encode())
            raise


def nodes_at_work(runs: Iterable[Run]) -> set[str]:
    """Nodes where an attempt on one of these runs came to its first step."""
    nodes = set()
    for run in runs:
        pids = {start["pid"] for start in run.starts()}
        attempts = AttemptLog(run).attempts()
        nodes |= {attempt.node for attempt in attempts if attempt.first_step is not None or attempt.pid in pids}
    return nodes


def _is_stop(stop: StopRequest) -> bool:
    """Whether a stop was requested, or is just now: whoever died, died of it."""
    deadline = time.monotonic() + SIGNAL_S
    while not stop():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.1)
    return True


def _known_cause(error: Exception, rendezvous: Rendezvous) -> tuple[Cause, str]:
    """Cause and detail of an exception; where another rank failed first, it knows better."""
    cause, detail = cause_of_error(error)
    told = rendezvous.reported_failure() if cause == "killed" and rendezvous.count > 1 else None
    return told or (cause, detail)
