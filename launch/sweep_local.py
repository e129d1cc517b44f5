"""A sweep on this machine: its workers are processes that end with it."""

import os
from collections.abc import Callable
from dataclasses import replace

import optuna
from rich.console import Console

from fsr.exit_codes import ExitCode
from fsr.lock import FileLock
from launch import local_workers
from launch.local_workers import LocalWorker
from launch.plan import Plan, cores, job_spec
from launch.show.live import AT_END, Watched, show, watch
from launch.show.messages import say, tell_result
from launch.show.table import Rows
from launch.slurm.environment import LocalEnvironment, leave_job
from launch.slurm.queue import Queue
from launch.state.code_snapshot import running_version
from launch.state.local import forget_dead_workers
from launch.state.paths import relative
from launch.state.same_failure import raise_mistakes
from launch.state.stop import StopRequest
from launch.state.study_storage import counts_of
from launch.submit import FEW_ENTRIES, next_spec_file
from launch.worker.protocol import Outcome
from launch.worker.rendezvous import Rendezvous
from launch.worker.study import StudyWorker


def sweep_here(
    plan: Plan, study: optuna.Study, missing: int, stop: StopRequest, lock: FileLock, console: Console
) -> ExitCode:
    """Work with processes of this machine that end with this one."""
    queue = Queue(plan.folder, on_slurm=False)
    rows = Rows(study, plan.folder, queue.holds)
    watched = Watched(rows, plan.base.iterations, plan.target, rows.read())
    plan.folder.forget_mistakes()
    forget_dead_workers(plan.folder)
    workers: list[LocalWorker] = []
    outcomes: list[Outcome | None] = []
    try:
        if plan.resources.cluster == "debug":
            outcomes += work_inside(plan, stop) if missing else []
        else:
            workers = start(plan, missing)
        watch(watched, console, ended(workers, stop, lock, console))
    finally:
        lock.release()
    outcomes += [worker.outcome() for worker in workers]
    stopped = stop.signals > 0 or Outcome.STOPPED in outcomes
    standing, there = watched.standing(), counts_of(study)
    show(standing, [], console, AT_END)
    for worker in workers:
        if worker.outcome() is None:
            say(console, f"a worker died; its log: {relative(worker.log_file)}")
    raise_mistakes(plan.folder)
    tell_result(plan.study, plan.base, plan.folder, plan.target, there, standing.rows, stopped, console)
    if stopped:
        return ExitCode.INTERRUPTED
    return ExitCode.DONE if there.done >= plan.target else ExitCode.INCOMPLETE


def start(plan: Plan, missing: int) -> list[LocalWorker]:
    """Start as many workers on this machine as the missing trials need."""
    if not missing:
        return []
    spec, folder = replace(job_spec(plan), sweep_pid=os.getpid()), plan.folder.folder / "local"
    assert spec.code is not None
    spec_file = next_spec_file(folder)
    spec.write(spec_file)
    threads = max(1, cores() // plan.parallel)
    code = plan.folder.code.snapshot(spec.code)
    logs = folder / spec_file.stem if len(os.listdir(folder)) > FEW_ENTRIES else folder
    return local_workers.start(spec_file, code, logs, min(plan.parallel, missing), threads)


def work_inside(plan: Plan, stop: StopRequest) -> list[Outcome]:
    """Work inside this process, one trial after the other, with the checkout's code (`--cluster debug`)."""
    leave_job()
    database = plan.storage is not None
    worker = StudyWorker(
        study=plan.study, base=plan.base, folder=plan.folder, database=database, code=running_version()
    )
    return [worker.work(stop, LocalEnvironment(), Rendezvous(plan.folder.locks))]


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
