"""The worker of an inference: takes shards of the images until none is left."""

from dataclasses import dataclass, replace

from fsr.inference.config import InferConfig
from launch.slurm.environment import Environment
from launch.state.paths import ResultsFolder
from launch.state.stop import StopRequest
from launch.worker import method
from launch.worker.protocol import FindCause, Outcome
from launch.worker.rendezvous import Rendezvous


@dataclass(frozen=True, kw_only=True)
class InferenceWorker:
    """One of the workers of an inference. All that it must not lose is in the journal of the images."""

    config: InferConfig
    folder: ResultsFolder

    def work(self, stop: StopRequest, environment: Environment, rendezvous: Rendezvous) -> Outcome:
        """Take the shards that nobody works on, one after the other, until each was done or taken."""
        for shard in range(self.config.shards):
            if stop():
                break
            lock = self.folder.shard_lock(shard)
            if not lock.try_acquire():
                continue
            try:
                end = method.infer(replace(self.config, shard=shard), stop)
            finally:
                lock.release()
            if end == "stopped":
                break
        else:
            return Outcome.DONE
        environment.leave(environment.cause_of_stop(stop))
        return Outcome.STOPPED

    def follow(self, stop: StopRequest, rendezvous: Rendezvous) -> None:
        """Each worker infers alone: launch/infer.py refuses more than one rank."""
        raise AssertionError(f"an inference has one rank, not {rendezvous.count}")

    def close_lost(self, job: str, since: float, find_cause: FindCause) -> bool:
        """Nothing is open after a worker that died: what it had not done is missing in the journal."""
        return False
