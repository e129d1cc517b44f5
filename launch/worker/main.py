"""What each rank of a Slurm job runs, `python -m launch.worker.main JOB_SPEC`: rank 0 works, the others follow it."""

import os
import sys
from pathlib import Path

from fsr.errors import UserError
from fsr.exit_codes import ExitCode
from launch.slurm import bad_nodes, commands
from launch.slurm.environment import Environment, current_environment
from launch.state.stop import StopRequest
from launch.worker.job_spec import JobSpec
from launch.worker.protocol import Outcome, Worker
from launch.worker.rendezvous import Rendezvous

EXIT_CODES = {
    Outcome.DONE: ExitCode.DONE,
    Outcome.STOPPED: ExitCode.DONE,
    Outcome.BROKEN: ExitCode.BROKEN,
    Outcome.MISTAKE: ExitCode.MISTAKE,
}


def main() -> None:
    """Work until nothing is left to do; the exit code tells the batch script what came of it."""
    spec = JobSpec.read(Path(sys.argv[1]))
    worker = spec.worker()
    environment, rendezvous = current_environment(), Rendezvous(worker.folder.locks)
    # A rank may use the cores that Slurm gave it, less those of its data loaders; not all that the node has.
    cores = int(os.environ.get("SLURM_CPUS_PER_TASK") or 1)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores - spec.config["workers"])))
    with StopRequest(worker.folder.stop_file) as stop:
        if rendezvous.rank == 0:
            sys.exit(EXIT_CODES[lead(worker, stop, environment, rendezvous)])
        worker.follow(stop, rendezvous)


def lead(worker: Worker, stop: StopRequest, environment: Environment, rendezvous: Rendezvous) -> Outcome:
    """Rank 0: leave a bad node, or work; a mistake of the user is recorded for the one who submitted."""
    if environment.node in bad_nodes.bad_nodes(worker.folder):
        bad = bad_nodes.to_exclude(worker.folder, commands.partition_nodes(os.environ.get("SLURM_JOB_PARTITION")))
        if bad:
            print(f"trials died of broken hardware on {environment.node}; going to another node", flush=True)
            environment.move_off(bad)
    try:
        outcome = worker.work(stop, environment, rendezvous)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        worker.folder.record_mistake(environment.job, str(error))
        outcome = Outcome.MISTAKE
    rendezvous.announce_end()
    return outcome


if __name__ == "__main__":
    main()
