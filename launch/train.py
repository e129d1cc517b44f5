"""One long run through Slurm: `python launch/train.py voc --run_folder DIR --gpus 4 …`, which loses nothing."""

import sys

import tyro

from fsr.command import parse_command
from fsr.config import TrainConfig
from fsr.console import console as new_console
from fsr.errors import reports_user_errors
from fsr.exit_codes import ExitCode
from launch.show.messages import say
from launch.slurm.environment import LocalEnvironment
from launch.slurm.resources import Resources
from launch.state.paths import RunFolder
from launch.state.stop import StopRequest
from launch.submit import prepare, submit
from launch.worker.protocol import Outcome
from launch.worker.rendezvous import Rendezvous
from launch.worker.single_run import SingleRunWorker

EXIT_CODES = {
    Outcome.DONE: ExitCode.DONE,
    Outcome.STOPPED: ExitCode.INTERRUPTED,
    Outcome.BROKEN: ExitCode.BROKEN,
}


@reports_user_errors
def main(arguments: list[str] | None = None) -> None:
    """Flags of `python -m fsr.train`, and those that say where (`--cluster --gpus --partition --time-limit …`)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    asked, others = tyro.cli(Resources, args=arguments, return_unknown_args=True, add_help=False)
    config, run_folder = parse_command("python launch/train.py", others)
    resources, folder = asked.resolved(), RunFolder(run_folder.absolute())
    if resources.cluster == "slurm":
        resources.processes_for(config)  # refuses a number of processes that cannot train this run
    folder.run.start(config)
    if resources.cluster != "slurm":
        sys.exit(train_here(config, folder))
    lock = folder.sweep_lock()
    lock.take(f"submitting {folder.folder}")
    folder.stop_file.unlink(missing_ok=True)
    submission = prepare(folder, 0 if folder.run.result() else 1, resources, config)
    ids = submit(submission, "run", folder, config)
    lock.release()
    console = new_console()
    for note in submission.notes:
        say(console, f"note: {note}")
    if folder.run.result():
        say(console, f"finished already: {folder.run.result_file}")
    elif submission.live:
        say(console, "it is in the queue or running already")
    else:
        say(console, f"submitted job {ids[0]}; its log: {folder.slurm}")


def train_here(config: TrainConfig, folder: RunFolder) -> ExitCode:
    """Train in this process."""
    worker = SingleRunWorker(config=config, folder=folder)
    with StopRequest(folder.stop_file) as stop:
        return EXIT_CODES[worker.work(stop, LocalEnvironment(), Rendezvous(folder.locks))]


if __name__ == "__main__":
    main()
