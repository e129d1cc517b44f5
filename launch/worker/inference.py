"""An inference in many jobs: each worker answers shard after shard until none is left."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fsr.errors import UserError
from fsr.inference.config import InferConfig
from launch.state.attempts import Attempt, Cause
from launch.state.paths import ResultsFolder
from launch.state.stop import StopRequest
from launch.worker.rendezvous import Rendezvous
from launch.worker.study import Outcome
from launch.worker.training import Environment

if TYPE_CHECKING:
    from fsr.infer import Inference


def infer(config: InferConfig) -> "Inference":
    """Open the method's inference, imported inside the job: nothing else in launch needs torch."""
    from fsr.infer import Inference

    return Inference(config)


@dataclass(frozen=True, kw_only=True)
class InferenceWorker:
    """A worker of an inference. Its state is in the journals of the results; one opened inference serves all shards."""

    config: InferConfig
    folder: ResultsFolder
    infer: Callable[[InferConfig], "Inference"] = infer

    def work(self, stop: StopRequest, environment: Environment, ranks: Rendezvous) -> Outcome:
        """Answer the shards that no other worker is at, one after the other, until each was done or taken."""
        inference = None
        for shard in range(self.config.shards):
            if stop():
                break
            lock = self.folder.shard_lock(shard)
            if not lock.try_acquire():
                continue
            try:
                inference = inference or self.infer(self.config)
                end = inference.answer_shard(shard, stop)
            except UserError as error:
                return Outcome(mistake=str(error))
            finally:
                lock.release()
            if end == "stopped":
                break
        else:
            return Outcome()
        environment.leave(environment.cause_of_stop(stop))
        return Outcome(stopped=True)

    def close_lost(self, task: str, since: float, find_cause: Callable[[Attempt], tuple[Cause, str]]) -> bool:
        """A worker that died leaves nothing open: the images that it had not done are missing in the journals."""
        return False
