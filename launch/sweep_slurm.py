"""A sweep on Slurm: submits the workers that are missing, and may then be closed."""

import optuna
from rich.console import Console

from fsr.errors import UserError
from fsr.exit_codes import ExitCode
from fsr.lock import FileLock
from fsr.next_command import next_command, study_words
from launch.plan import Plan, job_spec
from launch.show.live import AT_END, Watched, show, watch
from launch.show.messages import NOTHING_SUBMITTED, more_than_parallel, say, tell_result, tell_submission
from launch.show.table import Rows
from launch.slurm.job_logs import why_nobody_works
from launch.slurm.queue import Queue
from launch.state.paths import relative
from launch.state.same_failure import raise_mistakes
from launch.state.stop import StopRequest
from launch.state.study_storage import counts_of
from launch.submit import Submission, prepare, submit


def submit_workers(plan: Plan, missing: int, console: Console) -> tuple[Submission, list[str]]:
    """Submit the workers that are missing; and the ids of their arrays. Raises UserError if nobody would work."""
    submission = prepare_workers(plan, missing)
    if missing and not submission.workers and not submission.live:
        for note in submission.notes:
            say(console, f"note: {note}")
        raise UserError(NOTHING_SUBMITTED)
    return submission, submit(submission, job_spec(plan), plan.resources, plan.base)


def sweep_on_slurm(
    plan: Plan,
    study: optuna.Study,
    submission: Submission,
    ids: list[str],
    stop: StopRequest,
    lock: FileLock,
    detach: bool,
    console: Console,
) -> ExitCode:
    """Say what was submitted, and watch; the workers need nothing of this process any more."""
    queue = Queue(plan.folder, on_slurm=True)
    rows = Rows(study, plan.folder, queue.holds)
    watched = Watched(rows, plan.base.iterations, plan.target, rows.read())
    lock.release()
    tell(submission, ids, console)
    say(console, f"logs of the workers: {relative(plan.folder.slurm)}")
    status = next_command("status", *study_words(plan.study.name, plan.folder.folder.parent), "--watch")
    if detach:
        say(console, f"look at it: {status}")
        return ExitCode.DONE

    def all_gone() -> bool:
        return stop.signals > 0 or queue.nobody_works()

    watch(watched, console, all_gone, queue.notices)
    standing, there = watched.standing(), counts_of(study)
    show(standing, [], console, AT_END)
    if stop.signals:
        say(console, f"the jobs work on by themselves (scancel ends them); look at them: {status}")
        return ExitCode.INTERRUPTED
    raise_mistakes(plan.folder)
    if there.done < plan.target:
        for line in why_nobody_works(plan.folder, queue):
            say(console, line)
    tell_result(plan.study, plan.base, plan.folder, plan.target, there, standing.rows, False, console)
    return ExitCode.DONE if there.done >= plan.target else ExitCode.INCOMPLETE


def prepare_workers(plan: Plan, missing: int) -> Submission:
    """What to submit for so many missing trials."""
    submission = prepare(plan.folder, min(plan.parallel, missing), plan.resources)
    submission.notes.extend(more_than_parallel(submission.live, plan.parallel))
    return submission


def tell(submission: Submission, ids: list[str], console: Console) -> None:
    """Say what was submitted, or (without ids) would be."""
    arrays, workers = len(submission.sizes), submission.workers
    tell_submission(ids, arrays, workers, submission.live, submission.notes, console)
