"""One run on its own, with the guarantees of a study's trials."""

from dataclasses import dataclass
from functools import partial

from fsr.config import TrainConfig
from fsr.errors import UserError
from launch.slurm import bad_nodes
from launch.slurm.environment import Environment, cause_of_lost_attempt
from launch.slurm.requeue_rules import given_up
from launch.state.attempts import AttemptLog
from launch.state.paths import RunFolder
from launch.state.stop import StopRequest
from launch.worker import training
from launch.worker.protocol import FindCause, Outcome
from launch.worker.rendezvous import Rendezvous

OUTCOMES = {"finished": Outcome.DONE, "stopped": Outcome.STOPPED, "broken": Outcome.BROKEN}


@dataclass(frozen=True, kw_only=True)
class SingleRunWorker:
    """The worker of a run that belongs to no study."""

    config: TrainConfig
    folder: RunFolder

    def work(self, stop: StopRequest, environment: Environment, rendezvous: Rendezvous) -> Outcome:
        """Train the run to its end, unless a stop is requested or it is given up."""
        log, lock, run = AttemptLog(self.folder.run), self.folder.lock(), self.folder.run
        # Before a local one stands a user, who may have started it twice.
        if environment.job != "local" and not training.wait_until_free(lock, stop):
            environment.leave(environment.cause_of_stop(stop))
            return Outcome.STOPPED
        lock.take(f"training {self.folder.folder}", patience_s=5.0)
        try:
            log.close_lost(partial(cause_of_lost_attempt, identity=self.folder.identity))
            if run.result() is not None and [attempt.cause for attempt in log.attempts()][-1:] == ["finished"]:
                run.check(self.config)
                return Outcome.DONE  # Slurm, or somebody, requeued a job that had ended well
            reason = given_up(log.attempts())
            if reason:
                raise UserError(f"{self.folder.folder} is given up: {reason}; its attempts.json tells more")
            end = training.attempt(self.config, run, stop, environment, rendezvous, training.never)
            if end == "broken":
                bad_nodes.report(self.folder, 0, log.attempts()[-1])
            return OUTCOMES[end]
        finally:
            lock.release()

    def follow(self, stop: StopRequest, rendezvous: Rendezvous) -> None:
        """Train the run as another rank."""
        training.follow(stop, rendezvous)

    def nodes_at_work(self) -> set[str]:
        """Nodes where an attempt on the run came to its first step."""
        return training.nodes_at_work([self.folder.run])

    def close_lost(self, job: str, since: float, find_cause: FindCause) -> bool:
        """Record what ended a job's attempt that died; False if the job had none since then (Unix time)."""
        log, lock = AttemptLog(self.folder.run), self.folder.lock()
        own = [attempt for attempt in log.attempts() if attempt.job == job and attempt.started >= since]
        if own and lock.try_acquire():
            try:
                log.close_lost(find_cause)
            finally:
                lock.release()
        return bool(own)
