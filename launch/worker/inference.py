"""An inference in many tasks: each takes shards of the images until none is left."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from fsr.errors import UserError
from fsr.inference.config import InferConfig
from launch.state.attempts import Attempt, Cause
from launch.state.paths import ResultsFolder
from launch.state.stop import StopRequest
from launch.worker.rendezvous import Rendezvous
from launch.worker.study import Outcome
from launch.worker.training import Environment

Infer = Callable[..., Literal["finished", "stopped", "shard done"]]


def infer(config: InferConfig, stop: StopRequest) -> Literal["finished", "stopped", "shard done"]:
    """The method's inference, imported inside the task."""
    from fsr.infer import infer

    return infer(config, stop)


@dataclass(frozen=True, kw_only=True)
class InferenceWorker:
    """What a task does of an inference. The journal of the images is all that has to be kept."""

    config: InferConfig
    folder: ResultsFolder
    infer: Infer = infer

    def work(self, stop: StopRequest, environment: Environment, ranks: Rendezvous) -> Outcome:
        """Take the shards that nobody works on, one after the other, until each was done or taken."""
        for shard in range(self.config.shards):
            if stop():
                break
            lock = self.folder.shard_lock(shard)
            if not lock.try_acquire():
                continue
            try:
                end = self.infer(replace(self.config, shard=shard), stop)
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
        """Nothing is open after a worker that died: what it had not done is missing in the journal."""
        return False
