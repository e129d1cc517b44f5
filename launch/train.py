"""One long run through Slurm: `python launch/train.py voc --run_folder DIR --gpus 4 …`, lost to nothing."""

import sys

import tyro
from rich.console import Console

from fsr.command import parse_command
from fsr.errors import UserError, reports_user_errors
from launch import submit
from launch.slurm.environment import LocalEnvironment
from launch.slurm.resources import Resources
from launch.state.paths import RunFolder
from launch.state.stop import StopRequest
from launch.worker.job_spec import JobSpec
from launch.worker.rendezvous import Rendezvous
from launch.worker.training import train


@reports_user_errors
def main(arguments: list[str] | None = None) -> None:
    """Flags of `python -m fsr.train`, and those that say where (`--cluster --gpus --partition --time-limit …`)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    asked, others = tyro.cli(Resources, args=arguments, return_unknown_args=True, add_help=False)
    config, run_folder = parse_command("python launch/train.py", others)
    resources, folder = asked.resolved(), RunFolder(run_folder.absolute())
    folder.run.start(config)
    console = Console(width=None if sys.stdout.isatty() else 140)
    if resources.cluster != "slurm":
        sys.exit(
            here(JobSpec(folder=str(folder.folder), config=config.to_json(), train="launch.worker.training:train"))
        )
    lock = folder.sweep_lock()
    if not lock.try_acquire(patience_s=1.0):
        raise UserError(f"process {lock.holder()} is submitting {folder.folder} already")
    folder.stop_file.unlink(missing_ok=True)
    submitted = submit.prepare(folder, 0 if folder.run.result() else 1, resources, config)
    ids = submit.submit(submitted, folder, config, train)
    lock.release()
    for warning in submitted.warnings:
        console.print(f"note: {warning}", soft_wrap=True, highlight=False)
    if folder.run.result():
        console.print(f"finished already: {folder.run.result_file}", soft_wrap=True, highlight=False)
    elif submitted.live:
        console.print("it is in the queue or running already", soft_wrap=True, highlight=False)
    else:
        console.print(f"submitted job {ids[0]}; its log: {folder.slurm}", soft_wrap=True, highlight=False)


def here(spec: JobSpec) -> int:
    """Train in this process; returns the exit code."""
    worker = spec.worker()
    with StopRequest(worker.folder.stop_file) as stop:
        outcome = worker.work(stop, LocalEnvironment(), Rendezvous(worker.folder.locks))
    if outcome.mistake:
        raise UserError(outcome.mistake)
    return 130 if outcome.stopped else 75 if outcome.broken else 0


if __name__ == "__main__":
    main()
