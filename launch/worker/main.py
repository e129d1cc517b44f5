"""What each rank of a Slurm job runs, `python -m launch.worker.main JOB_SPEC`: rank 0 claims trials, others follow."""

import os
import sys
import traceback
from pathlib import Path

from launch.slurm import bad_nodes, commands
from launch.slurm.environment import current_environment
from launch.state.stop import StopRequest
from launch.worker.job_spec import JobSpec
from launch.worker.rendezvous import Rendezvous
from launch.worker.single_run import SingleRun
from launch.worker.study import Worker
from launch.worker.training import Environment, cause_of

MISTAKE = 2  # the user must mend something
BROKEN = 75  # a trial failed here; work again in a new process


def main() -> None:
    """Work until nothing is left to do; the exit code tells the batch script what came of it."""
    spec = JobSpec.read(Path(sys.argv[1]))
    worker = spec.worker()
    environment, ranks = current_environment(), Rendezvous(worker.folder.locks)
    # A rank may use the cores that Slurm gave it, less those of its data loaders; not all that the node has.
    cores = int(os.environ.get("SLURM_CPUS_PER_TASK") or 1)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores - spec.config["workers"])))
    with StopRequest(worker.folder.stop_file) as stop:
        sys.exit(lead(worker, environment, ranks, stop) if ranks.rank == 0 else follow(worker, ranks, stop))


def lead(worker: Worker | SingleRun, environment: Environment, ranks: Rendezvous, stop: StopRequest) -> int:
    """Rank 0."""
    if environment.node in bad_nodes.bad_nodes(worker.folder):
        bad = bad_nodes.to_exclude(worker.folder, commands.partition_nodes(os.environ.get("SLURM_JOB_PARTITION")))
        if bad:
            print(f"trials died of broken hardware on {environment.node}; going to another node", flush=True)
            environment.move_off(bad)
    outcome = worker.work(stop, environment, ranks)
    ranks.dismiss()
    if outcome.mistake:
        print(f"error: {outcome.mistake}", file=sys.stderr)
        (worker.folder.slurm / f"{environment.task}.mistake").write_text(outcome.mistake)
        return MISTAKE
    return BROKEN if outcome.broken else 0


def follow(worker: Worker | SingleRun, ranks: Rendezvous, stop: StopRequest) -> int:
    """Another rank."""
    for config, run in ranks.follow():
        try:
            worker.train(config, run, stop_requested=stop, prune=lambda *_: False)
        except Exception as error:
            ranks.confess(*cause_of(error))
            (run.folder / f"error_rank{ranks.rank}.txt").write_text(traceback.format_exc())
            raise
    return 0


if __name__ == "__main__":
    main()
