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
from launch import executor
from launch.claim import DONE, Order
from launch.lock import FileLock
from launch.plan import Options, Plan, cores, define, plan
from launch.preemption import StopRequest
from launch.progress import watch
from launch.storage import open_storage
from launch.table import Rows, table
from launch.worker import Outcome, Worker, train

INTERRUPTED = 130  # what a shell reports of a command that Ctrl-C ended


@reports_user_errors
def main(arguments: list[str] | None = None, train: Callable[..., str] = train) -> None:
    """The command line; `train` is what a worker does with a trial's configuration and run folder."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sys.exit(sweep(tyro.cli(Options, args=arguments), train))


def sweep(options: Options, train: Callable[..., str] = train) -> int:
    """Train the missing trials and compare all; returns the exit code."""
    planned = plan(options)
    console = Console(width=None if sys.stdout.isatty() else 140)
    if options.dry_run:
        trials = open_study(planned).trials if planned.folder.study_file.exists() else []
        announce(planned, trials, console)
        return 0
    lock = planned.folder.sweep_lock()
    if not lock.try_acquire(patience_s=1.0):
        raise UserError(f"process {lock.holder()} is sweeping {planned.folder.folder} already")
    tasks: list[executor.Task] = []
    with StopRequest() as stop:
        try:
            define(planned)
            study = open_study(planned)
            trials = study.get_trials(deepcopy=False)
            announce(planned, trials, console)
            rows = Rows(study, planned.folder)
            before = rows.read(running="interrupted")
            tasks = submit(planned, trials, options.cluster, train)
            watch(rows, before, planned.base.iterations, planned.wanted, console, ended(tasks, stop, lock, console))
        finally:
            lock.release()  # the workers' sign to save and leave, however this ends
        outcomes = [task.outcome() for task in tasks]
        stopped = stop.signals > 0 or any(outcome.stopped for outcome in outcomes if outcome)
    console.print(table(rows.read(running="interrupted"), planned.base.iterations, best_number(study)))
    for task, outcome in zip(tasks, outcomes, strict=True):
        if outcome is None:
            console.print(f"a worker died; its log: {relative(task.log_file)}", soft_wrap=True)
    return conclude(planned, study, outcomes, stopped, console)


def open_study(planned: Plan) -> optuna.Study:
    """The study in its storage, made if it is new."""
    return optuna.create_study(
        study_name=planned.study.name,
        storage=open_storage(planned.folder.folder),
        direction="maximize",
        load_if_exists=True,
    )


def announce(planned: Plan, trials: list[optuna.trial.FrozenTrial], console: Console) -> None:
    """Say what is there and what will be done."""
    done, failed = count(trials, *DONE), count(trials, TrialState.FAIL)
    interrupted = count(trials, TrialState.RUNNING, TrialState.WAITING)
    base, folder = planned.base, relative(planned.folder.folder)
    lines = (
        f"study {planned.study.name} in {folder}: {planned.wanted} trials wanted, up to {planned.parallel} at a time",
        f"there are: {done} done, {interrupted} interrupted, {failed} failed",
        f"each run: {base.dataset} from {relative(base.data_folder)}, {base.iterations} steps, seed {base.seed}; "
        f"searched: {', '.join(planned.study.space(base))}",
    )
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False)


def submit(
    planned: Plan, trials: list[optuna.trial.FrozenTrial], cluster: str, train: Callable[..., str]
) -> list[executor.Task]:
    """Start as many workers as the missing trials need."""
    missing = planned.wanted - count(trials, *DONE)
    if missing <= 0:
        return []
    threads = str(max(1, cores() // planned.parallel))
    worker = Worker(
        study=planned.study,
        base=planned.base,
        folder=planned.folder,
        order=Order(planned.wanted, planned.wanted + count(trials, TrialState.FAIL)),
        sweep_pid=None if cluster == "debug" else os.getpid(),
        environment={"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads)},
        train=train,
    )
    return executor.submit(worker, min(planned.parallel, missing), cluster)


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


def conclude(
    planned: Plan, study: optuna.Study, outcomes: list[Outcome | None], stopped: bool, console: Console
) -> int:
    """Say what came out and what to do next; returns the exit code."""
    mistakes = [outcome.mistake for outcome in outcomes if outcome and outcome.mistake]
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
