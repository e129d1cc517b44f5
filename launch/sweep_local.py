"""A sweep on this machine: its workers are processes that end with it."""

import os
from collections.abc import Callable

import optuna
from rich.console import Console

from fsr.errors import UserError
from fsr.exit_codes import ExitCode
from launch import local_workers
from launch.local_workers import LocalWorker
from launch.plan import Plan, cores
from launch.show.live import watch
from launch.show.messages import relative, say, tell_result
from launch.show.table import Rows, table
from launch.slurm.queue import Queue
from launch.state.lock import FileLock
from launch.state.stop import StopRequest
from launch.state.target import reached
from launch.state.trials import best_trial
from launch.worker.protocol import Outcome
from launch.worker.study import StudyWorker


def sweep_here(
    plan: Plan, study: optuna.Study, missing: int, stop: StopRequest, lock: FileLock, console: Console
) -> ExitCode:
    """Work with processes of this machine that end with this one."""
    queue = Queue(plan.folder, on_slurm=False)
    rows = Rows(study, plan.folder, queue.holds)
    before, iterations = rows.read(), plan.base.iterations
    plan.folder.forget_mistakes()
    workers = start(plan, missing)
    try:
        watch(rows, before, iterations, plan.target, console, ended(workers, stop, lock, console))
    finally:
        lock.release()
    outcomes = [worker.outcome() for worker in workers]
    stopped = stop.signals > 0 or Outcome.STOPPED in outcomes
    trials = study.get_trials(deepcopy=False)
    console.print(table(rows.read(), iterations, best_trial(trials)))
    for worker, outcome in zip(workers, outcomes, strict=True):
        if outcome is None:
            say(console, f"a worker died; its log: {relative(worker.log_file)}")
    mistakes = plan.folder.mistakes()
    if mistakes:
        raise UserError(mistakes[0])
    tell_result(plan.study, plan.folder, plan.target, trials, stopped, console)
    if stopped:
        return ExitCode.INTERRUPTED
    return ExitCode.DONE if reached(plan.target, trials) else ExitCode.INCOMPLETE


def start(plan: Plan, missing: int) -> list[LocalWorker]:
    """Start as many workers on this machine as the missing trials need."""
    if not missing:
        return []
    threads = str(max(1, cores() // plan.parallel))
    cluster = plan.resources.cluster
    worker = StudyWorker(
        study=plan.study,
        base=plan.base,
        folder=plan.folder,
        database=plan.storage is not None,
        sweep_pid=None if cluster == "debug" else os.getpid(),
        variables={"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads)},
    )
    return local_workers.start(worker, min(plan.parallel, missing), cluster)


def ended(workers: list[LocalWorker], stop: StopRequest, lock: FileLock, console: Console) -> Callable[[], bool]:
    """Whether all workers are gone; passes a stop on to them. A second Ctrl-C does not wait for them to save."""

    def all_ended() -> bool:
        if stop.signals and lock.held:
            lock.release()
            say(console, "stopping: the workers save their checkpoints; Ctrl-C again ends them at once")
        if stop.signals > 1:
            for worker in workers:
                worker.kill()
        return all(worker.done() for worker in workers)

    return all_ended
