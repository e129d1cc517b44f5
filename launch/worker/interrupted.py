"""Which running trials nobody works on any more: looked for before the claim lock is taken, taken under it.

Locks of trials are asked, and so is Slurm: both may take long, and nobody else shall wait for that.
"""

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial

from launch.slurm import bad_nodes, commands
from launch.slurm.environment import cause_of_lost_attempt
from launch.slurm.requeue_rules import still_runs
from launch.state.attempts import Attempt, Cause
from launch.state.paths import StudyFolder
from launch.worker.protocol import FindCause

LOOKED_AT = 64  # running trials that one claim looks at while there are others to be begun
ENOUGH = 8  # interrupted ones of which one claim chooses


@dataclass(frozen=True)
class Interrupted:
    """A running trial whose lock was free."""

    number: int
    attempts: tuple[Attempt, ...]
    cause: tuple[Cause, str] | None
    """What ended the last attempt, if it has not said so itself."""
    elsewhere: bool = False
    """Whether Slurm says that another job still works on it."""

    def is_free(self, folder: StudyFolder) -> bool:
        """Whether nobody has had it since. The claim lock must be held: without it nobody begins to work on a trial."""
        return (
            not self.elsewhere
            and not folder.trial_lock(self.number).is_held()
            and tuple(folder.attempt_log(self.number).attempts()) == self.attempts
        )

    def close(self, folder: StudyFolder) -> None:
        """Write down what ended the last attempt, if it is not. The claim lock must be held."""
        if self.cause:
            with folder.trial_lock(self.number):
                close_lost(folder, self.number, partial(self._cause_of, folder=folder))

    def _cause_of(self, attempt: Attempt, folder: StudyFolder) -> tuple[Cause, str]:
        """What was found, unless another node has begun an attempt meanwhile that this one had not seen."""
        if self.cause and attempt == self.attempts[-1]:
            return self.cause
        return cause_of_lost_attempt(attempt, identity=folder.identity)


def interrupted(folder: StudyFolder, running: Collection[int], job: str, *, all_of_them: bool) -> list[Interrupted]:
    """Those of the running trials that nobody works on.

    Unless it has to be `all_of_them`, it looks at some, and stops when it has found enough: the next claim looks at
    others.
    """
    numbers = sorted(running if all_of_them else random.sample(list(running), min(LOOKED_AT, len(running))))
    found: list[Interrupted] = []
    for number in numbers:
        if not all_of_them and len(found) == ENOUGH:
            break
        if folder.trial_lock(number).is_held():
            continue
        attempts = tuple(folder.attempt_log(number).attempts())
        last = attempts[-1] if attempts else None
        if last is None or last.cause:
            found.append(Interrupted(number, attempts, None))
        elif _works_elsewhere(folder, last, job):
            found.append(Interrupted(number, attempts, None, elsewhere=True))
        else:
            found.append(Interrupted(number, attempts, cause_of_lost_attempt(last, identity=folder.identity)))
    return found


def overlooked(folder: StudyFolder, running: Collection[int], found: Sequence[Interrupted]) -> bool:
    """Whether nobody holds another one of the running trials: it was just being looked at by another worker, or its own
    died meanwhile. The claim lock must be held."""
    seen = {one.number for one in found}
    return any(number not in seen and not folder.trial_lock(number).is_held() for number in running)


def _works_elsewhere(folder: StudyFolder, last: Attempt, job: str) -> bool:
    """Whether Slurm says that another job still works on a trial whose lock is free."""
    return last.job not in ("local", job) and still_runs(last, commands.job(last.job, folder.identity))


def close_lost(folder: StudyFolder, number: int, find_cause: FindCause) -> None:
    """If the last attempt on a trial died without a cause, record one. The trial's lock must be held."""
    log = folder.attempt_log(number)
    if log.close_lost(find_cause):
        bad_nodes.report(folder, number, log.attempts()[-1])


def is_ending(folder: StudyFolder, running: Collection[int], job: str) -> bool:
    """Whether one of the running trials is still held by an earlier start of this job, which is being killed."""
    for number in running:
        attempts = folder.attempt_log(number).attempts()
        if attempts and attempts[-1].job == job and attempts[-1].cause is None:
            return True
    return False
