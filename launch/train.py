"""One long run through Slurm: `fsr submit-train voc --run_folder DIR --gpus 4 …`, which loses nothing."""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # this checkout, whatever Python it is
    from fsr import beginning

    beginning.begin("submit-train")
    from fsr.command import help_first
    from launch.train_options import parse

    help_first(parse)

import os
import sys

from fsr.config import PLACES, TrainConfig
from fsr.console import console as new_console
from fsr.errors import UserError, reports_user_errors
from fsr.exit_codes import ExitCode
from fsr.pretrained import require_weights
from fsr.writable import check_folder
from launch.show.messages import NOTHING_SUBMITTED, say
from launch.slurm.environment import LocalEnvironment, leave_job
from launch.slurm.job_logs import why_nobody_works
from launch.slurm.queue import Queue
from launch.state.attempts import AttemptLog
from launch.state.paths import RunFolder
from launch.state.rights import check_rights
from launch.state.stop import StopRequest
from launch.submit import choose_code, last_spec, prepare, submit
from launch.train_options import parse
from launch.worker.job_spec import JobSpec
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
    """Flags of `fsr train`, and those that say where (`--cluster --gpus --partition --time_limit …`)."""
    asked, config, run_folder = parse(sys.argv[1:] if arguments is None else arguments)
    config, resources, folder = config.from_anywhere(), asked.resolved(), RunFolder(run_folder.resolve())
    if resources.cluster == "slurm":
        resources.processes_for(config)  # refuses a number of processes that cannot train this run
    folder.run.check(config)
    if not os.path.exists(folder.run.result_file):
        check_folder(folder.folder, folder.option)
    if resources.cluster != "slurm":
        sys.exit(train_here(config, folder))
    check_rights(folder)
    require_weights(config)  # here, for the nodes may have no network
    lock = folder.sweep_lock()
    lock.take(f"submitting {folder.folder}")
    folder.stop_file.unlink(missing_ok=True)
    console = new_console()
    code = choose_code(folder, asked.renew_code, "", console)
    problem = [] if folder.run.result() else why_nobody_works(folder, Queue(folder, on_slurm=True))
    submission = prepare(folder, 0 if folder.run.result() else 1, resources)
    spec = JobSpec(kind="run", folder=str(folder.folder), config=config.to_json(), code=code)
    if submission.live:
        check_queued(folder, config)
    ids = submit(submission, spec, resources, config)
    lock.release()
    for note in submission.notes:
        say(console, f"note: {note}")
    for line in problem:
        say(console, line)
    if folder.run.result():
        say(console, f"finished already: {folder.run.result_file}")
    elif submission.live:
        say(console, f"it is in the queue or running already: {queued(folder)}")
    elif not ids:
        raise UserError(NOTHING_SUBMITTED)
    else:
        say(console, f"submitted job {ids[0]}; its log: {folder.slurm}")


def queued(folder: RunFolder) -> str:
    """The run's jobs in the queue, with their states and, where they train, their nodes; empty if there are none."""
    jobs = Queue(folder, on_slurm=True).jobs() or {}  # without an answer, the run's locks keep two from training it
    nodes = {each.job: f" on {each.node}" for each in AttemptLog(folder.run).attempts() if each.cause is None}
    return ", ".join(f"job {job_id} is {job.state}{nodes.get(job_id, '')}" for job_id, job in jobs.items())


def check_queued(folder: RunFolder, config: TrainConfig) -> None:
    """Raise UserError if the job in the queue has other settings: it has not begun, so the run folder has none yet."""
    queued = last_spec(folder.slurm)
    now = config.to_json()
    changed = [name for name in now if queued and name not in PLACES and queued.config.get(name) != now[name]]
    if queued and changed:
        name = changed[0]
        raise UserError(
            f"a job of {folder.folder} with {name} {queued.config.get(name)}, not {now[name]}, is in the queue; "
            "wait for it, or end it with scancel"
        )


def train_here(config: TrainConfig, folder: RunFolder) -> ExitCode:
    """Train in this process. Raises UserError if another one does, or a job of Slurm does or will."""
    there = queued(folder)
    if there:
        raise UserError(f"{folder.folder} is trained by Slurm: {there}; wait for it, or end it with scancel")
    leave_job()
    worker = SingleRunWorker(config=config, folder=folder)
    with StopRequest(folder.stop_file) as stop:
        return EXIT_CODES[worker.work(stop, LocalEnvironment(), Rendezvous(folder.locks))]


if __name__ == "__main__":
    main()
