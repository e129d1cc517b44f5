"""Which workers are alive, in Slurm's queue and on this machine."""

import math
import platform
import time
from collections import Counter

from fsr.files import process_exists
from launch.slurm import commands, job_reasons
from launch.slurm.answers import QueuedJob
from launch.slurm.commands import Silence
from launch.slurm.job_states import Stage, may_work, stage
from launch.slurm.requeue_rules import still_runs
from launch.state.attempts import Attempt
from launch.state.paths import LaunchFolder

FRESH_S = 2.0
OTHERS_FRESH_S = 30.0
SILENT_S = 60.0  # that Slurm may stay silent before it is said
SETTLE_S = 10.0  # a reason may be one of a moment, as while a controller starts


class Queue:
    """Looks into Slurm's queue now and then. The jobs of a folder are known by its id."""

    def __init__(self, folder: LaunchFolder, on_slurm: bool) -> None:
        self._folder = folder
        self._looked = 0.0 if on_slurm else math.inf  # without a queue, nothing can be in it
        self._answer: dict[str, QueuedJob] | Silence = {}
        self._silence: tuple[float, str] | None = None  # since when, and why at first
        self._answers_since: float | None = None  # after a silence that was said
        self._last_worker = time.time()
        self._others: dict[Attempt, tuple[float, bool]] = {}  # of other users' jobs: when asked, and whether they work

    def jobs(self) -> dict[str, QueuedJob] | None:
        """Each job in the queue by its id; None if Slurm does not answer."""
        if time.time() - self._looked >= FRESH_S:
            identity = self._folder.identity
            self._answer = {} if identity is None else commands.queued_jobs(identity)
            self._looked = time.time()
            self._remember()
        return None if isinstance(self._answer, Silence) else self._answer

    def _remember(self) -> None:
        """Since when Slurm is silent, and when a worker was last seen."""
        if isinstance(self._answer, Silence):
            self._silence = self._silence or (self._looked, self._answer.words)
            self._last_worker = self._looked
            return
        if self._silence and self._looked - self._silence[0] >= SILENT_S:
            self._answers_since = self._looked
        self._silence = None
        if self._answer.keys() - job_reasons.stuck(self._answer).keys():
            self._last_worker = self._looked

    @property
    def silence(self) -> str | None:
        """Why Slurm does not answer; None if it does."""
        self.jobs()
        return self._silence[1] if self._silence else None

    def states(self) -> dict[str, int] | None:
        """How many of these jobs are in each state."""
        jobs = self.jobs()
        return None if jobs is None else dict(Counter(job.state for job in jobs.values()))

    def nobody_works(self) -> bool:
        """Whether no job is left that works, will work or is ending. No answer is not that."""
        jobs = self.jobs()
        if jobs is None:
            return False
        return not jobs or self._looked - self._last_worker >= SETTLE_S

    def notices(self) -> list[str]:
        """What a user should know of the queue while he watches; each sentence stays the same for as long as it holds.

        A silence is said once it has lasted for SILENT_S.
        """
        jobs = self.jobs()
        if jobs is None:
            assert self._silence is not None
            since, words = self._silence
            silent = self._looked - since >= SILENT_S
            return [f"since {_clock(since)} Slurm has not answered: {words}"] if silent else []
        again = [f"Slurm answers again since {_clock(self._answers_since)}"] if self._answers_since else []
        waiting = [f"Slurm's queue: {job_reasons.summary(jobs)}"] if jobs else []
        return [*again, *waiting, *job_reasons.waits(jobs), *job_reasons.remedies(jobs)]

    def holds(self, attempt: Attempt) -> bool:
        """Whether an attempt that has not ended still works, as far as can be known from here."""
        if attempt.job == "local":
            return attempt.node != platform.node() or process_exists(attempt.pid)
        jobs = self.jobs()
        if jobs is None or attempt.started > self._looked:  # younger than what is known of the queue
            return True
        if attempt.job in jobs:
            state = jobs[attempt.job].state
            return may_work(state) or stage(state) is Stage.ENDING
        return self._a_colleague_works(attempt)

    def _a_colleague_works(self, attempt: Attempt) -> bool:
        """Whether an attempt's job works that is not in this user's queue. Asked now and then, job by job."""
        asked, works = self._others.get(attempt, (-math.inf, False))
        if time.time() - asked >= OTHERS_FRESH_S:
            job = commands.job(attempt.job, self._folder.identity)
            works = job is None or still_runs(attempt, job)
            self._others[attempt] = time.time(), works
        return works


def cancel_waiting(folder: LaunchFolder) -> None:
    """Cancel the jobs of a folder that wait to start: they would only start to end."""
    jobs = commands.queued_jobs(folder.identity) if folder.identity else {}
    waiting = [] if isinstance(jobs, Silence) else [job_id for job_id, job in jobs.items() if job.state == "PENDING"]
    if waiting:
        commands.run("scancel", *waiting)


def _clock(moment: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(moment))
