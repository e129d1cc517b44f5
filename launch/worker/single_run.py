"""One run on its own, with the guarantees of a study's trials."""

from collections.abc import Callable
from dataclasses import dataclass

from fsr.config import TrainConfig
from fsr.errors import UserError
from launch.slurm.environment import cause_of_end
from launch.state.attempts import Attempt, AttemptLog, Cause
from launch.state.paths import RunFolder
from launch.state.stop import StopRequest
from launch.worker.rendezvous import Rendezvous
from launch.worker.study import Outcome
from launch.worker.training import Environment, Train, attempt, train


@dataclass(frozen=True, kw_only=True)
class SingleRun:
    """What a task does with a run that belongs to no study."""

    config: TrainConfig
    folder: RunFolder
    train: Train = train

    def work(self, stop: StopRequest, environment: Environment, ranks: Rendezvous) -> Outcome:
        """Train the run to its end, unless a stop is requested or it is given up."""
        lock, attempt_log = self.folder.lock(), AttemptLog(self.folder.run)
        if not lock.try_acquire(patience_s=5.0):
            return Outcome(mistake=f"process {lock.holder()} trains {self.folder.folder} already")
        try:
            attempt_log.close_lost(cause_of_end)
            reason = attempt_log.given_up()
            if reason:
                return Outcome(mistake=f"{self.folder.folder} is given up: {reason}; its attempts.json tells more")
            end = attempt(self.train, self.config, self.folder.run, stop, environment, ranks, prune=lambda *_: False)
        except UserError as error:
            return Outcome(mistake=str(error))
        finally:
            lock.release()
        return Outcome(stopped=end == "stopped", broken=end == "broken")

    def close_lost(self, task: str, since: float, find_cause: Callable[[Attempt], tuple[Cause, str]]) -> bool:
        """Write down how the attempt of a task ended that died; False if the task had none since then (Unix time)."""
        attempt_log, lock = AttemptLog(self.folder.run), self.folder.lock()
        own = [attempt for attempt in attempt_log.attempts() if attempt.task == task and attempt.started >= since]
        if own and lock.try_acquire():
            try:
                attempt_log.close_lost(find_cause)
            finally:
                lock.release()
        return bool(own)
