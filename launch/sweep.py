"""Sweep a study: `python launch/sweep.py --study NAME --data_folder DIR`. Running it again goes on where it was."""

import os
import shlex
import sys
from collections.abc import Callable

import optuna
import tyro
from optuna.trial import TrialState
from rich.console import Console

from fsr.errors import UserError, reports_user_errors
from launch import executor, submission
from launch.claim import DONE, Order
from launch.jobs import Queue
from launch.lock import FileLock
from launch.plan import Options, Plan, cores, define, plan
from launch.preemption import StopRequest
from launch.progress import watch
from launch.storage import STORAGE_VARIABLE, open_storage, without_password
from launch.table import Rows, table
from launch.verify import verify_resume
from launch.worker import Worker, train

INTERRUPTED = 130  # what a shell reports of a command that Ctrl-C ended


@reports_user_errors
def main(arguments: list[str] | None = None, train: Callable[..., str] = train) -> None:
    """The command line; `train` is what a worker does with a trial's configuration and run folder."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    options = tyro.cli(Options, args=arguments)
    if options.storage:  # what is written down of the command must not show a password
        sys.argv = [word.replace(options.storage, without_password(options.storage)) for word in sys.argv]
    sys.exit(sweep(options, train))


def sweep(options: Options, train: Callable[..., str] = train) -> int:
    """Train the missing trials and compare all; returns the exit code."""
    planned = plan(options)
    console = Console(width=None if sys.stdout.isatty() else 140)
    if planned.storage:
        os.environ[STORAGE_VARIABLE] = planned.storage  # for the workers
    if options.verify_resume:
        return verify_resume(planned, console)
    if options.dry_run:
        return dry_run(planned, console)
    lock = planned.folder.sweep_lock()
    if not lock.try_acquire(patience_s=1.0):
        raise UserError(f"process {lock.holder()} is sweeping {planned.folder.folder} already")
    on_slurm = planned.resources.cluster == "slurm"
    with StopRequest() as stop:
        try:
            define(planned)
            planned.folder.stop_file.unlink(missing_ok=True)
            study = open_study(planned)
            trials = study.get_trials(deepcopy=False)
            announce(planned, trials, console)
            Order(planned.wanted, planned.wanted + count(trials, TrialState.FAIL)).place(planned.folder)
            if on_slurm:
                return sweep_on_slurm(planned, study, stop, lock, options.detach, train, console)
            return sweep_here(planned, study, stop, lock, train, console)
        finally:
            lock.release()  # the local workers' sign to save and leave, however this ends


def sweep_here(
    planned: Plan, study: optuna.Study, stop: StopRequest, lock: FileLock, train: Callable[..., str], console: Console
) -> int:
    """Work with processes of this machine that end with this one."""
    queue = Queue(planned.folder, on_slurm=False)
    rows = Rows(study, planned.folder, queue.holds)
    before, iterations = rows.read(), planned.base.iterations
    tasks = start(planned, missing(planned, study), train)
    try:
        watch(rows, before, iterations, planned.wanted, console, ended(tasks, stop, lock, console))
    finally:
        lock.release()
    outcomes = [task.outcome() for task in tasks]
    stopped = stop.signals > 0 or any(outcome.stopped for outcome in outcomes if outcome)
    console.print(table(rows.read(), iterations, best_number(study)))
    for task, outcome in zip(tasks, outcomes, strict=True):
        if outcome is None:
            console.print(f"a worker died; its log: {relative(task.log_file)}", soft_wrap=True)
    mistakes = [outcome.mistake for outcome in outcomes if outcome and outcome.mistake]
    return conclude(planned, study, mistakes, stopped, console)


def sweep_on_slurm(
    planned: Plan,
    study: optuna.Study,
    stop: StopRequest,
    lock: FileLock,
    detach: bool,
    train: Callable[..., str],
    console: Console,
) -> int:
    """Submit the workers that are missing, and watch; they need nothing of this process any more."""
    submitted = prepare(planned, missing(planned, study))
    queue = Queue(planned.folder, on_slurm=True)
    rows = Rows(study, planned.folder, queue.holds)
    before = rows.read()
    study_of = {"study": planned.study.name, "database": planned.storage is not None}
    ids = submission.submit(submitted, planned.folder, planned.base, train, **study_of)
    lock.release()
    tell_submission(submitted, ids, console)
    status = f"python launch/status.py --study {planned.study.name} --runs {relative(planned.folder.folder.parent)}"
    if detach:
        console.print(f"look at it: {status}", soft_wrap=True)
        return 0

    def all_gone() -> bool:
        return stop.signals > 0 or queue.tasks() == {}

    watch(rows, before, planned.base.iterations, planned.wanted, console, all_gone)
    console.print(table(rows.read(), planned.base.iterations, best_number(study)))
    if stop.signals:
        console.print(f"the jobs go on by themselves (scancel ends them); look at them: {status}", soft_wrap=True)
        return INTERRUPTED
    mistakes = [file.read_text() for file in planned.folder.slurm.glob("*.mistake")]
    return conclude(planned, study, mistakes, False, console)


def prepare(planned: Plan, missing: int) -> submission.Submission:
    """What to submit for so many missing trials."""
    return submission.prepare(planned.folder, min(planned.parallel, missing), planned.resources, planned.base)


def tell_submission(submitted: submission.Submission, ids: list[str], console: Console) -> None:
    """Say what was submitted, or would be."""
    for warning in submitted.warnings:
        console.print(f"note: {warning}", soft_wrap=True, highlight=False)
    if ids:
        what = "array" if len(ids) == 1 else f"{len(ids)} arrays"
        line = f"submitted {what} {', '.join(ids)}: {submitted.workers} workers"
    else:
        line = f"{submitted.workers} workers in {len(submitted.scripts)} sbatch calls"
    console.print(f"{line}; {submitted.live} were there already", soft_wrap=True, highlight=False)


def dry_run(planned: Plan, console: Console) -> int:
    """Say what would be done."""
    there = planned.folder.study_file.exists()
    trials = open_study(planned).get_trials(deepcopy=False) if there else []
    announce(planned, trials, console)
    if planned.resources.cluster == "slurm":
        submitted = prepare(planned, planned.wanted - count(trials, *DONE))
        tell_submission(submitted, [], console)
        for number, text in enumerate(submitted.scripts):
            same = number > 0 and text == submitted.scripts[0]
            console.print(
                f"script {number} is the same" if same else text, soft_wrap=True, highlight=False, markup=False
            )
    return 0


def open_study(planned: Plan) -> optuna.Study:
    """The study in its storage, made if it is new."""
    return optuna.create_study(
        study_name=planned.study.name,
        storage=open_storage(planned.folder.folder, planned.storage is not None),
        direction="maximize",
        load_if_exists=True,
    )


def announce(planned: Plan, trials: list[optuna.trial.FrozenTrial], console: Console) -> None:
    """Say what is there and what will be done."""
    done, failed = count(trials, *DONE), count(trials, TrialState.FAIL)
    unfinished = count(trials, TrialState.RUNNING, TrialState.WAITING)
    base, folder = planned.base, relative(planned.folder.folder)
    lines = (
        f"study {planned.study.name} in {folder}: {planned.wanted} trials wanted, up to {planned.parallel} at a time",
        f"there are: {done} done, {unfinished} unfinished, {failed} failed",
        f"each run: {base.dataset} from {relative(base.data_folder)}, {base.iterations} steps, seed {base.seed}; "
        f"searched: {', '.join(planned.study.space(base))}",
    )
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False)


def missing(planned: Plan, study: optuna.Study) -> int:
    """Trials that are still to be finished."""
    return max(0, planned.wanted - count(study.get_trials(deepcopy=False), *DONE))


def start(planned: Plan, missing: int, train: Callable[..., str]) -> list[executor.Task]:
    """Start as many workers on this machine as the missing trials need."""
    if not missing:
        return []
    threads = str(max(1, cores() // planned.parallel))
    cluster = planned.resources.cluster
    worker = Worker(
        study=planned.study,
        base=planned.base,
        folder=planned.folder,
        database=planned.storage is not None,
        sweep_pid=None if cluster == "debug" else os.getpid(),
        environment={"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads)},
        train=train,
    )
    return executor.start(worker, min(planned.parallel, missing), cluster)


def ended(tasks: list[executor.Task], stop: StopRequest, lock: FileLock, console: Console) -> Callable[[], bool]:
    """Whether all workers are gone; passes a stop on to them. A second Ctrl-C does not wait for them to save."""

    def all_ended() -> bool:
        if stop.signals and lock.held:
            lock.release()
            console.print("stopping: the workers save their checkpoints; Ctrl-C again ends them at once")
        if stop.signals > 1:
            for task in tasks:
                task.kill()
        return all(task.done() for task in tasks)

    return all_ended


def conclude(planned: Plan, study: optuna.Study, mistakes: list[str], stopped: bool, console: Console) -> int:
    """Say what came out and what to do next; returns the exit code."""
    if mistakes:
        raise UserError(mistakes[0])
    trials = study.get_trials(deepcopy=False)
    done, folder = count(trials, *DONE), relative(planned.folder.folder)

    def say(line: str) -> None:
        console.print(line, soft_wrap=True, highlight=False)

    best = best_number(study)
    if best is not None:
        run = relative(planned.folder.run(best).folder)
        say(f"best: trial {best}, {planned.study.metric} {trials[best].value:.4f}, in {run}")
        say("One seed a setting: small differences may be chance; repeat the best settings with other seeds.")
        say(f"curves and pictures: tensorboard --logdir {folder}")
    again = shlex.join(["python", *sys.argv])
    if stopped:
        say(f"stopped with {done} of {planned.wanted} trials done; nothing is lost, to go on: {again}")
        return INTERRUPTED
    if done < planned.wanted:
        say(
            f"{done} of {planned.wanted} trials done; error.txt in a failed trial's folder tells why; to go on: {again}"
        )
        return 1
    say(f"more trials: add --trials {planned.wanted + planned.study.trials} to the same command")
    return 0


def best_number(study: optuna.Study) -> int | None:
    """The finished trial with the highest score."""
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return max(finished, key=lambda trial: trial.value).number if finished else None


def count(trials: list[optuna.trial.FrozenTrial], *states: TrialState) -> int:
    """How many trials are in one of these states."""
    return sum(trial.state in states for trial in trials)


def relative(path: os.PathLike) -> str:
    """A path as seen from here, if that is shorter."""
    return min(os.path.relpath(path), str(path), key=len)


if __name__ == "__main__":
    main()
