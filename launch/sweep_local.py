"""A sweep on this machine: its workers are processes that end with it."""

import os
from collections.abc import Callable

import optuna
from rich.console import Console

from launch import local_workers
from launch.local_workers import LocalWorker
from launch.plan import Plan, cores
from launch.show.live import watch
from launch.show.messages import best_number, conclude, relative
from launch.show.table import Rows, table
from launch.slurm.queue import Queue
from launch.state.lock import FileLock
from launch.state.stop import StopRequest
from launch.worker.study import Worker


def sweep_here(
    planned: Plan,
    study: optuna.Study,
    missing: int,
    stop: StopRequest,
    lock: FileLock,
    train: Callable[..., str],
    console: Console,
) -> int:
    """Work with processes of this machine that end with this one."""
    queue = Queue(planned.folder, on_slurm=False)
    rows = Rows(study, planned.folder, queue.holds)
    before, iterations = rows.read(), planned.base.iterations
    tasks = start(planned, missing, train)
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


def start(planned: Plan, missing: int, train: Callable[..., str]) -> list[LocalWorker]:
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
        variables={"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads)},
        train=train,
    )
    return local_workers.start(worker, min(planned.parallel, missing), cluster)


def ended(tasks: list[LocalWorker], stop: StopRequest, lock: FileLock, console: Console) -> Callable[[], bool]:
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
