"""One run on its own, with the guarantees of a study's trials."""

from collections.abc import Callable
from dataclasses import dataclass

from fsr.config import TrainConfig
from fsr.errors import UserError
from launch.attempt import Slot, Train, attempt, train
from launch.folder import RunFolder
from launch.ledger import Attempt, Cause, Ledger
from launch.preemption import StopRequest
from launch.ranks import Ranks
from launch.slot import cause_of_death
from launch.worker import Outcome


@dataclass(frozen=True, kw_only=True)
class SingleRun:
    """What a task does with a run that belongs to no study."""

    config: TrainConfig
    folder: RunFolder
    train: Train = train

    def work(self, stop: StopRequest, slot: Slot, ranks: Ranks) -> Outcome:
        """Train the run to its end, unless a stop is requested or it is given up."""
        lock, ledger = self.folder.lock(), Ledger(self.folder.run)
        if not lock.try_acquire(patience_s=5.0):
            return Outcome(mistake=f"process {lock.holder()} trains {self.folder.folder} already")
        try:
            ledger.close_lost(cause_of_death)
            reason = ledger.given_up()
            if reason:
                return Outcome(mistake=f"{self.folder.folder} is given up: {reason}; its attempts.json tells more")
            end = attempt(self.train, self.config, self.folder.run, stop, slot, ranks, prune=lambda *_: False)
        except UserError as error:
            return Outcome(mistake=str(error))
        finally:
            lock.release()
        return Outcome(stopped=end == "stopped", broken=end == "broken")

    def close_lost(self, task: str, since: float, find_cause: Callable[[Attempt], tuple[Cause, str]]) -> bool:
        """Write down how the attempt of a task ended that died; False if the task had none since then (Unix time)."""
        ledger, lock = Ledger(self.folder.run), self.folder.lock()
        own = [attempt for attempt in ledger.attempts() if attempt.task == task and attempt.started >= since]
        if own and lock.try_acquire():
            try:
                ledger.close_lost(find_cause)
            finally:
                lock.release()
        return bool(own)
