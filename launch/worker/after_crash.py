"""What follows the early end of ranks: `python -m launch.worker.after_crash SPEC EXIT_CODE STARTED START [SIGNAL …]`.

The batch script asks this; the signals are those that it got itself. Exit code 75 means: start the ranks (again), in
new processes of the same job. With 0 the job ends; before that, it may have requeued itself, or waited to be killed.
The script outlives whatever ended its ranks, so a trial whose process was killed resumes at once, without another wait
in the queue. It starts this with all signals ignored that ask a job to stop: Slurm may send them while this decides.
"""

import os
import sys
import time
import traceback
from pathlib import Path

from fsr.errors import reports_user_errors
from fsr.exit_codes import ExitCode
from fsr.parent import end_with
from launch.slurm import answers, commands
from launch.slurm.environment import SlurmEnvironment
from launch.slurm.requeue_rules import Action, after_crash, cause_of_end, cause_of_exit
from launch.state.attempts import Attempt, Cause
from launch.state.full_disk import disk_is_full, wait_for_space
from launch.worker.job_spec import JobSpec
from launch.worker.protocol import FindCause, Worker
from launch.worker.rendezvous import Rendezvous

END_OF_LOG = 2000  # bytes
SETTLE_S = 1.0  # until the controller knows why it killed the ranks


@reports_user_errors
def main() -> None:
    """Record what ended the dead ranks' attempt, and leave as the rules say, or let the script start them again."""
    end_with(os.getppid())  # no longer than the batch script: by then the job may be at work elsewhere
    worker, exit_code = JobSpec.read(Path(sys.argv[1])).worker(), int(sys.argv[2])
    started, start, signals = float(sys.argv[3]), int(sys.argv[4]), sys.argv[5:]
    environment = SlurmEnvironment()
    time.sleep(SETTLE_S)
    by_file = worker.folder.stop_file.exists()
    if exit_code == ExitCode.MISTAKE:
        sys.exit(ExitCode.MISTAKE)
    cause = cause_of_end(exit_code, signals, by_file, commands.job(environment.job), environment.restarts)
    if cause is not None:
        leave(worker, environment, cause, started)
        sys.exit(ExitCode.DONE)

    def find_cause(attempt: Attempt) -> tuple[Cause, str]:
        step = start - 1  # starts are counted from 1, the job's steps from 0
        reported = Rendezvous(worker.folder.locks, step).reported_failure(patience_s=0)
        if reported:
            return reported
        log_file = worker.folder.job_log(environment.job)
        return cause_of_exit(exit_code, out_of_memory(f"{os.environ['SLURM_JOB_ID']}.{step}", log_file))

    had_attempt = exit_code != ExitCode.DONE and close_lost(worker, environment.job, started, find_cause)
    restart = after_crash(exit_code, start, had_attempt) is Action.RESTART
    sys.exit(ExitCode.BROKEN if restart else ExitCode.DONE)


def leave(worker: Worker, environment: SlurmEnvironment, cause: Cause, started: float) -> None:
    """Do what the rules say of this cause. Returns only where the job is to end."""
    print(f"the ranks ended before they could say so: {cause}", flush=True)
    try:
        worker.close_lost(environment.job, started, lambda _: (cause, "the ranks ended before they could say so"))
    except Exception:  # a full disk, no storage: whoever comes next closes the attempt, and this job must go
        traceback.print_exc()
    environment.leave(cause)


def close_lost(worker: Worker, job: str, started: float, find_cause: FindCause) -> bool:
    """The worker's `close_lost`, which waits where the disk is full."""
    while True:
        try:
            return worker.close_lost(job, started, find_cause)
        except OSError as error:
            if not disk_is_full(error):
                raise
            wait_for_space(worker.folder.folder)


def out_of_memory(step: str, log_file: Path) -> bool:
    """Whether the ranks were killed for the memory they used: the accounts or the log say so.

    The accounts may not know of the end yet, or call it otherwise at first (23.11).
    """
    if commands.step_state(step) == "OUT_OF_MEMORY":
        return True
    with open(log_file, "rb") as log:
        log.seek(max(0, log_file.stat().st_size - END_OF_LOG))
        return answers.ran_out_of_memory(log.read().decode("utf-8", "replace"), step)


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        traceback.print_exc()
        # 1: an import or a file that cannot be read here is this node's, until another lacks it.
        sys.exit(ExitCode.INCOMPLETE if isinstance(error, ImportError | OSError) else ExitCode.DONE)
