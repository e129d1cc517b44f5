"""What each rank of a Slurm task runs: `python -m launch.task ASSIGNMENT`. Rank 0 claims trials, the others follow."""

import os
import sys
import traceback
from pathlib import Path

from launch import slurm, suspects
from launch.assignment import Assignment
from launch.attempt import Slot, cause_of
from launch.preemption import StopRequest
from launch.ranks import Ranks
from launch.single import SingleRun
from launch.slot import slot_here
from launch.worker import Worker

MISTAKE = 2  # the user must mend something
BROKEN = 75  # a trial failed here; work again in a new process


def main() -> None:
    """Work until nothing is left to do; the exit code tells the batch script what came of it."""
    assignment = Assignment.read(Path(sys.argv[1]))
    worker = assignment.worker()
    slot, ranks = slot_here(), Ranks(worker.folder.slots)
    # A rank may use the cores that Slurm gave it, less those of its data loaders; not all that the node has.
    cores = int(os.environ.get("SLURM_CPUS_PER_TASK") or 1)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores - assignment.config["workers"])))
    with StopRequest(worker.folder.stop_file) as stop:
        sys.exit(lead(worker, slot, ranks, stop) if ranks.rank == 0 else follow(worker, ranks, stop))


def lead(worker: Worker | SingleRun, slot: Slot, ranks: Ranks, stop: StopRequest) -> int:
    """Rank 0."""
    if slot.node in suspects.bad_nodes(worker.folder):
        bad = suspects.to_exclude(worker.folder, slurm.partition_nodes(os.environ.get("SLURM_JOB_PARTITION")))
        if bad:
            print(f"trials died of broken hardware on {slot.node}; going to another node", flush=True)
            slot.move_off(bad)
    outcome = worker.work(stop, slot, ranks)
    ranks.dismiss()
    if outcome.mistake:
        print(f"error: {outcome.mistake}", file=sys.stderr)
        (worker.folder.slurm / f"{slot.task}.mistake").write_text(outcome.mistake)
        return MISTAKE
    return BROKEN if outcome.broken else 0


def follow(worker: Worker | SingleRun, ranks: Ranks, stop: StopRequest) -> int:
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
