"""The worker of an inference: answers shard after shard until none is left."""

import sys
from dataclasses import dataclass

from fsr.heartbeat import HEARTBEAT
from fsr.inference.config import InferConfig
from launch.slurm import bad_nodes
from launch.slurm.environment import Environment
from launch.slurm.error_causes import cause_of_error
from launch.state.paths import ResultsFolder
from launch.state.stop import StopRequest
from launch.worker import method
from launch.worker.protocol import FindCause, Outcome
from launch.worker.rendezvous import Rendezvous


@dataclass(frozen=True, kw_only=True)
class InferenceWorker:
    """A worker of an inference. Its state is in the journals of the results; one opened inference serves all shards."""

    config: InferConfig
    folder: ResultsFolder

    def work(self, stop: StopRequest, environment: Environment, rendezvous: Rendezvous) -> Outcome:
        """Answer the shards that no other worker is at, one after the other, until each was done or taken."""
        inference = None
        for shard in range(self.config.shards):
            if stop():
                break
            lock = self.folder.shard_lock(shard)
            if not lock.try_acquire():
                continue
            try:
                HEARTBEAT.start("starting")
                inference = inference or method.open_inference(self.config)
                end = inference.answer_shard(shard, HEARTBEAT.between_steps(stop))
            except Exception as error:
                cause, detail = cause_of_error(error)
                if cause != "node":
                    raise
                bad_nodes.mark(self.folder, shard, environment.node, detail)
                print(f"error: node {environment.node} is broken: {detail}", file=sys.stderr)
                return Outcome.BROKEN
            finally:
                HEARTBEAT.idle("between shards")
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

    def nodes_at_work(self) -> set[str]:
        """The journals do not name their nodes."""
        return set()

    def close_lost(self, job: str, since: float, find_cause: FindCause) -> bool:
        """A worker that died leaves nothing open: the images that it had not done are missing in the journals."""
        return False
