"""A sweep on Slurm: submits the workers that are missing, and may then be closed."""

from collections.abc import Callable

import optuna
from rich.console import Console

from launch import submit
from launch.plan import Plan
from launch.show.live import watch
from launch.show.messages import INTERRUPTED, best_number, conclude, relative, tell_submission
from launch.show.table import Rows, table
from launch.slurm.queue import Queue
from launch.state.lock import FileLock
from launch.state.stop import StopRequest


def sweep_on_slurm(
    planned: Plan,
    study: optuna.Study,
    missing: int,
    stop: StopRequest,
    lock: FileLock,
    detach: bool,
    train: Callable[..., str],
    console: Console,
) -> int:
    """Submit the workers that are missing, and watch; they need nothing of this process any more."""
    submitted = prepare(planned, missing)
    queue = Queue(planned.folder, on_slurm=True)
    rows = Rows(study, planned.folder, queue.holds)
    before = rows.read()
    study_of = {"study": planned.study.name, "database": planned.storage is not None}
    ids = submit.submit(submitted, planned.folder, planned.base, train, **study_of)
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


def prepare(planned: Plan, missing: int) -> submit.Submission:
    """What to submit for so many missing trials."""
    return submit.prepare(planned.folder, min(planned.parallel, missing), planned.resources, planned.base)
