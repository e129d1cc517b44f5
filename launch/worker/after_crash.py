"""Asked by the batch script when a task broke: `python -m launch.worker.after_crash JOB_SPEC EXIT_CODE STARTED ROUND`.

Exit code 0 means: work again, in new processes of the same job. The script outlives whatever ended its ranks, so a
trial whose process was killed goes on at once, without another wait in the queue.
"""

import os
import sys
import time
from pathlib import Path

from launch.slurm import commands
from launch.slurm.environment import SlurmEnvironment
from launch.state.attempts import Attempt, Cause
from launch.worker.full_disk import disk_is_full, wait_for_space
from launch.worker.job_spec import JobSpec
from launch.worker.main import MISTAKE
from launch.worker.rendezvous import Rendezvous

ROUNDS = 3
LAST_WORDS = 2000  # bytes of a log
SETTLE_S = 1.0  # until the controller knows why it killed the ranks


def main() -> None:
    """Close what the dead ranks left open, and say whether to go on."""
    spec, code = JobSpec.read(Path(sys.argv[1])), int(sys.argv[2])
    started, number = float(sys.argv[3]), int(sys.argv[4])
    environment = SlurmEnvironment()
    time.sleep(SETTLE_S)
    job = commands.job(environment.task)
    if code == MISTAKE or (job and (not job.waits_or_runs or job.preempted or job.restarts > environment.restart)):
        sys.exit(1)

    worker = spec.worker()

    def find_cause(attempt: Attempt) -> tuple[Cause, str]:
        step = number - 1  # rounds are counted from 1, the job's steps from 0
        said = Rendezvous(worker.folder.locks, step).cause_of_others(patience_s=0)
        if said:
            return said
        if out_of_memory(f"{os.environ['SLURM_JOB_ID']}.{step}", worker.folder.slurm / f"{environment.task}_0_log.err"):
            return "out of memory", "Slurm's limit on the job's memory (--sbatch mem=…)"
        if code > 128:
            return "killed", f"a rank was ended by signal {code - 128}"
        return "exception", f"a rank ended with exit code {code}"

    # Going on is bound to an attempt that ended here, and attempts have budgets; a worker that was killed before it had
    # one gets a few more rounds. So this cannot go on for ever.
    while True:
        try:
            had_attempt = worker.close_lost(environment.task, started, find_cause)
            break
        except OSError as error:
            if not disk_is_full(error):
                raise
            wait_for_space(worker.folder.folder)
    sys.exit(0 if had_attempt or (code > 128 and number <= ROUNDS) else 1)


def out_of_memory(step: str, log_file: Path) -> bool:
    """Whether the ranks were killed for the memory they used: the accounts know, and where there are none, srun."""
    state = commands.step_state(step)
    if state is not None and state != "RUNNING":
        return state == "OUT_OF_MEMORY"
    with open(log_file, "rb") as log:
        log.seek(max(0, log_file.stat().st_size - LAST_WORDS))
        return f"oom-kill event(s) in StepId={step}.".encode() in log.read()


if __name__ == "__main__":
    main()
