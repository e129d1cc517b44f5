"""What must hold in a campaign whatever happens, checked whenever something happens that could break it.

It keeps books of its own, of what the simulated processes do: which process trains which trial, what lies on the disk,
which attempts are open. The protocol's own books (locks, journal, attempt logs) must agree with them.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from optuna.trial import FrozenTrial, TrialState

from benchmarks.campaign.clock import Clock, Process
from benchmarks.campaign.cluster import Cluster
from benchmarks.campaign.training import WRONG, Training
from launch.slurm.requeue_rules import RULES
from launch.state.attempts import Attempt, AttemptLog, cost_shares, followed
from launch.state.paths import StudyFolder
from launch.state.same_failure import that_count
from launch.state.target import Target
from launch.worker import study as worker_study
from launch.worker.claim import Claim

DONE = (TrialState.COMPLETE, TrialState.PRUNED)
BUDGETS = {cause: rule.budget for cause, rule in RULES.items() if rule.budget is not None}  # attempts
CAUSES = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned"}  # of the last attempt of a trial
FEW_LOST, FEW_RUNNING = 8, 64  # attempts without a process, and running trials, that every claim looks at
ROUNDED_S = 0.5  # by which times in seconds may differ that were rounded and added


class BrokenInvariant(BaseException):
    """What must hold does not. No `except Exception` of the code that it is raised in makes a cause of it."""


@dataclass(frozen=True)
class Holder:
    """One process; the ranks that follow it in the same job are another."""

    process: Process
    pid: int
    job: str
    restart: int

    def __str__(self) -> str:
        return f"process {self.pid} of job {self.job}"

    @property
    def lives(self) -> bool:
        """Whether it still runs."""
        return self.process.alive and self.process.pid == self.pid


@dataclass(frozen=True)
class Work:
    """What a process did on a trial, as the simulation knows it."""

    pid: int
    first_step: int | None
    recorded: int
    """The last step of its records."""
    reached: int
    """The last step that it did."""
    ended: float


class Invariants:
    """The books. Raises BrokenInvariant where one does not agree."""

    def __init__(
        self, clock: Clock, cluster: Cluster, folder: StudyFolder, trials: Callable[[], list[FrozenTrial]]
    ) -> None:
        self.told: dict[int, TrialState] = {}
        """How each trial ended."""
        self.closed: dict[int, list[Attempt]] = {}
        """The attempts on each trial that was told."""
        self.claims = 0
        """Answers to who asked for a trial."""
        self.last_end = clock.now
        """When a trial was told last."""
        self._clock, self._cluster, self._folder, self._trials = clock, cluster, folder, trials
        self._target = Target(0, 0)
        self._done = 0
        self._seen: set[int] = set()  # numbers that were claimed
        self._asking: list[Holder] = []  # who has asked for a trial and has no answer, also those killed meanwhile
        self._asked = 0  # times that somebody asked
        self._held: dict[int, Holder] = {}
        self._at_work: dict[int, Holder] = {}
        self._open: dict[int, Holder] = {}  # attempts without a cause
        self._works: dict[int, dict[int, Work]] = {}  # on each trial, by process
        self._saved: dict[int, int] = {}  # steps of the checkpoints on the disk
        self._said: dict[str, str] = {}  # by job: what its last claim was told in the place of a trial
        self._left = 0  # jobs that ended by themselves and were looked at

    @property
    def is_reached(self) -> bool:
        """Whether as many trials as wanted are done."""
        return self._done == self._target.trials

    def wants(self, target: Target) -> None:
        """The user wants so many trials from now on."""
        self._target = target

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep the books while the campaign runs."""
        claim, tell, let_go = worker_study.claim, Claim.tell, Claim.let_go
        begin, end, close = AttemptLog.begin, AttemptLog.end, AttemptLog.close_lost
        with (
            patch.object(worker_study, "claim", self._claiming(claim)),
            patch.object(Claim, "tell", self._telling(tell)),
            patch.object(Claim, "let_go", self._letting_go(let_go)),
            patch.object(AttemptLog, "begin", self._beginning(begin)),
            patch.object(AttemptLog, "end", self._ending(end)),
            patch.object(AttemptLog, "close_lost", self._closing(close)),
        ):
            yield

    def check(self) -> None:
        """After each event: no job left that had work to do, and no more processes train than run."""
        for job, code in self._cluster.left[self._left :]:
            said = self._said.get(job.id)
            require(code == 0, f"job {job.id} ended with exit code {code}, and nobody brings it back")
            require(said is not None, f"job {job.id} ended, although its last claim was given a trial")
        self._left = len(self._cluster.left)
        require(self._done <= self._target.trials, f"{self._done} trials are done, {self._target.trials} were wanted")

    def watch(self, training: Training, train: Callable[[], str]) -> str:
        """Let a process train, and write down what it did."""
        number, holder = training.number, self._me()
        other = self._at_work.get(number)
        require(other is None or not other.lives, f"trial {number} is trained by {holder} and by {other}")
        self._at_work[number] = holder
        try:
            return train()
        finally:
            resumed, saved = training.first_step, self._saved.get(number, 0)
            if training.has_started:
                require(resumed == saved, f"trial {number} resumed at step {resumed}, its checkpoint was of {saved}")
                require(training.saved >= saved, f"trial {number} went back from step {saved} to {training.saved}")
                self._saved[number] = training.saved
            first_step = resumed if training.has_started else None
            work = Work(holder.pid, first_step, training.recorded, training.reached, self._clock.now)
            self._works.setdefault(number, {})[holder.pid] = work
            del self._at_work[number]

    def check_end(self, trials: list[FrozenTrial]) -> None:
        """What the storage says in the end must be what was told."""
        numbers = [trial.number for trial in trials]
        require(numbers == list(range(len(trials))), f"the numbers of the trials are not 0 to {len(trials) - 1}")
        for trial in trials:
            told = self.told.get(trial.number)
            if told is not None or trial.state.is_finished():
                require(told in (trial.state, None), f"trial {trial.number} was told {told} and is {trial.state}")
            else:
                require(not self.is_reached, f"all trials are done, and trial {trial.number} is {trial.state}")

    # The books

    def _me(self) -> Holder:
        process = self._clock.running
        assert process is not None
        job = "{SLURM_ARRAY_JOB_ID}_{SLURM_ARRAY_TASK_ID}".format(**process.variables)
        return Holder(process, process.pid, job, int(process.variables["SLURM_RESTART_COUNT"]))

    def _claiming(self, claim: Callable[..., Any]) -> Callable[..., Any]:
        def claiming(*arguments: Any) -> Any:
            holder = self._me()
            lost = [(number, other) for number, other in self._open.items() if self._is_lost(other)]
            alone = not any(other.lives for other in self._asking)
            self._asking.append(holder)
            self._asked += 1
            asked = self._asked
            claimed = claim(*arguments)
            self.claims += 1
            if isinstance(claimed, Claim):
                self._said.pop(holder.job, None)
                self._claimed(claimed.trial.number, holder)
            else:
                self._said[holder.job] = claimed
                if claimed == "nothing left":
                    self._check_nothing_left()
                elif claimed != "stopped":
                    others = [*self._held.values(), *(other for other in self._asking if other != holder)]
                    at_work = any(not self._is_lost(other) for other in self._open.values())
                    works = at_work or any(other.lives for other in others)
                    require(works, f"{holder} is to wait for others, and nobody is at work")
            # Who is not alone leaves those to the others that they hold just now. Of many, a claim looks at some.
            looks_at_all = len(lost) <= FEW_LOST and len(self._seen) - len(self.told) <= FEW_RUNNING
            if alone and self._asked == asked and (looks_at_all or isinstance(claimed, str)):
                for number, other in lost if claimed != "stopped" else ():
                    require(
                        self._open.get(number) is not other,
                        f"the attempt of {other} on trial {number} is lost, and a claim did not close it",
                    )
            self._asking.remove(holder)
            return claimed

        return claiming

    def _check_nothing_left(self) -> None:
        untold = self._seen - self.told.keys()
        # Who was killed while he told it may have come far enough.
        left = [t.number for t in self._trials() if t.number in untold and not t.state.is_finished()] if untold else []
        require(not left or self.is_reached, f"a claim found nothing left, and trials {left} are unfinished")

    def _claimed(self, number: int, holder: Holder) -> None:
        other = self._held.get(number)
        require(other is None or not other.lives, f"trial {number} was given to {holder}, and {other} has it")
        require(number not in self.told, f"trial {number} has ended as {self.told.get(number)}, and was given again")
        self._seen.add(number)
        # Others who are asking, or were killed as they asked, may have made trials that nobody has claimed yet.
        require(number < len(self._seen) + len(self._asking), f"trial {number} is new: numbers before it were skipped")
        self._held[number] = holder
        limit = max(Target.of(self._folder).limit, self._target.limit)
        require(number < limit, f"trial {number} was begun, and none from {limit} on is wanted")
        held = sum(other.lives for other in self._held.values())
        wanted = self._target.trials
        require(self._done + held <= wanted, f"{self._done} trials are done, {held} in work, {wanted} were wanted")

    def _letting_go(self, let_go: Callable[..., None]) -> Callable[..., None]:
        def letting_go(claimed: Claim) -> None:
            number = claimed.trial.number
            if self._clock.running is not None and self._held.get(number) == self._me():
                del self._held[number]
            let_go(claimed)

        return letting_go

    def _telling(self, tell: Callable[..., None]) -> Callable[..., None]:
        def telling(claimed: Claim, value: float | None = None, state: TrialState = TrialState.COMPLETE) -> None:
            number = claimed.trial.number
            require(number not in self.told, f"trial {number} is told as {state} after {self.told.get(number)}")
            attempts = claimed.attempt_log.attempts()
            self._check_told(number, state, attempts, claimed.attempt_log)
            tell(claimed, value, state)
            self.told[number], self.closed[number] = state, attempts
            self._done += state in DONE
            self.last_end = self._clock.now

        return telling

    def _check_told(self, number: int, state: TrialState, attempts: list[Attempt], log: AttemptLog) -> None:
        causes = [attempt.cause for attempt in attempts]
        require(None not in causes, f"trial {number} is told, and an attempt on it has no cause: {causes}")
        wanted = CAUSES.get(state)
        require(wanted in (None, *causes[-1:]), f"trial {number} is told as {state}, its attempts ended as {causes}")
        occupied = sum(attempt.seconds * attempt.ranks for attempt in attempts)
        shares = log.gpu_seconds(failed=state == TrialState.FAIL)
        require(
            abs(sum(shares.values()) - occupied) < ROUNDED_S,
            f"trial {number}: the attempts took {occupied} GPU-seconds, which were made {shares}",
        )
        if state != TrialState.FAIL:
            self._check_shares(number, attempts)

    def _check_shares(self, number: int, attempts: list[Attempt]) -> None:
        """What the log counts as useful of each attempt lies between what was, and what its records let it seem."""
        for (attempt, share), (_, following) in zip(cost_shares(attempts, False), followed(attempts), strict=True):
            work = self._works.get(number, {}).get(attempt.pid)
            if following is None or following.first_step is None or work is None or work.first_step is None:
                continue
            kept, first = following.first_step - work.first_step, work.first_step
            if kept <= 0:
                least = most = 0.0
            else:
                least = kept / max(kept, work.reached - first)
                most = kept / max(kept, work.recorded - first)
            occupied = attempt.seconds * attempt.ranks
            require(
                least * occupied - ROUNDED_S <= share["useful"] <= most * occupied + ROUNDED_S,
                f"trial {number}: {kept} of {work.reached - first} steps were resumed from, and {share} is said of "
                f"{occupied} GPU-seconds",
            )

    def _beginning(self, begin: Callable[..., None]) -> Callable[..., None]:
        def beginning(log: AttemptLog, *arguments: Any) -> None:
            number = number_of(log)
            other = self._open.get(number)
            require(other is None, f"an attempt on trial {number} begins, and that of {other} has no cause")
            causes = Counter(attempt.cause for attempt in that_count(self._folder, log.attempts()))
            for cause, budget in BUDGETS.items():
                require(
                    causes[cause] < budget,
                    f"trial {number} is tried again after {causes[cause]} attempts that ended as {cause}",
                )
            begin(log, *arguments)
            self._open[number] = self._me()

        return beginning

    def _ending(self, end: Callable[..., None]) -> Callable[..., None]:
        def ending(log: AttemptLog, *arguments: Any) -> None:
            end(log, *arguments)
            self._closed(log, by_itself=True)

        return ending

    def _closing(self, close: Callable[..., bool]) -> Callable[..., bool]:
        def closing(log: AttemptLog, *arguments: Any) -> bool:
            number = number_of(log)
            holder = self._open.get(number)
            closed = close(log, *arguments)
            if closed:
                require(holder is None or not holder.lives, f"the attempt of {holder} was closed, and it lives")
                self._closed(log, by_itself=False)
            return closed

        return closing

    def _closed(self, log: AttemptLog, by_itself: bool) -> None:
        number, attempt = number_of(log), log.attempts()[-1]
        self._open.pop(number, None)
        made = attempt.cause != "exception" or WRONG in attempt.detail
        require(made, f"an attempt on trial {number} ended of what nobody simulated: {attempt.detail}")
        work = self._works.get(number, {}).get(attempt.pid)
        if work is None or attempt.cause == "disk full":
            return
        found = attempt.first_step, attempt.reached
        reached = None if work.first_step is None else work.recorded
        require(
            found == (work.first_step, reached),
            f"trial {number} was worked on from step {work.first_step} to {reached}, and its log says {found}",
        )
        ended = attempt.ended or 0.0
        late = ended > self._clock.now + ROUNDED_S if by_itself else ended > work.ended + ROUNDED_S
        require(not late and ended >= attempt.started, f"an attempt on trial {number} ended later than its process did")

    def _is_lost(self, holder: Holder) -> bool:
        """Whether its process is gone, and its job is not one that Slurm takes to be running still."""
        job = self._cluster.jobs.get(holder.job)
        return not holder.lives and not (job and job.state == "RUNNING" and job.restarts == holder.restart)


def number_of(log: AttemptLog) -> int:
    """The number of the trial."""
    return int(log.file.parent.name.rpartition("_")[2])


def require(holds: bool, sentence: str) -> None:
    """Raise BrokenInvariant unless it holds."""
    if not holds:
        raise BrokenInvariant(sentence)
