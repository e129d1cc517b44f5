"""The batch script asks this when ranks died: `python -m launch.worker.after_crash SPEC EXIT_CODE STARTED START`.

Exit code 0 means: start the ranks again, in new processes of the same job. The script outlives whatever ended its
ranks, so a trial whose process was killed resumes at once, without another wait in the queue.
"""

import os
import sys
import time
from pathlib import Path

from fsr.errors import reports_user_errors
from fsr.exit_codes import ExitCode
from launch.slurm import commands
from launch.slurm.environment import SlurmEnvironment
from launch.slurm.requeue_rules import Action, after_crash, cause_of_exit, job_is_over
from launch.state.attempts import Attempt, Cause
from launch.state.full_disk import disk_is_full, wait_for_space
from launch.worker.job_spec import JobSpec
from launch.worker.protocol import FindCause, Worker
from launch.worker.rendezvous import Rendezvous

END_OF_LOG = 2000  # bytes
SETTLE_S = 1.0  # until the controller knows why it killed the ranks


@reports_user_errors
def main() -> None:
    """Record what ended the dead ranks' attempt, and tell the batch script whether to start them again."""
    worker, exit_code = JobSpec.read(Path(sys.argv[1])).worker(), int(sys.argv[2])
    started, start = float(sys.argv[3]), int(sys.argv[4])
    environment = SlurmEnvironment()
    time.sleep(SETTLE_S)
    if job_is_over(exit_code, commands.job(environment.job), environment.restarts):
        sys.exit(ExitCode.INCOMPLETE)

    def find_cause(attempt: Attempt) -> tuple[Cause, str]:
        step = start - 1  # starts are counted from 1, the job's steps from 0
        reported = Rendezvous(worker.folder.locks, step).reported_failure(patience_s=0)
        if reported:
            return reported
        log_file = worker.folder.slurm / f"{environment.job}_0_log.err"
        return cause_of_exit(exit_code, out_of_memory(f"{os.environ['SLURM_JOB_ID']}.{step}", log_file))

    had_attempt = close_lost(worker, environment.job, started, find_cause)
    restart = after_crash(exit_code, start, had_attempt) is Action.RESTART
    sys.exit(ExitCode.DONE if restart else ExitCode.INCOMPLETE)


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
    """Whether the ranks were killed for the memory they used: the accounts know, and where there are none, srun."""
    state = commands.step_state(step)
    if state is not None and state != "RUNNING":
        return state == "OUT_OF_MEMORY"
    with open(log_file, "rb") as log:
        log.seek(max(0, log_file.stat().st_size - END_OF_LOG))
        return f"oom-kill event(s) in StepId={step}.".encode() in log.read()


if __name__ == "__main__":
    main()
