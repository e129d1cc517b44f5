"""The worker of an inference, or of a study's: answers shard after shard until none is left."""

import sys
from dataclasses import dataclass

from fsr.errors import UserError
from fsr.heartbeat import HEARTBEAT
from fsr.inference.config import InferConfig
from launch.slurm import bad_nodes
from launch.slurm.environment import Environment
from launch.slurm.error_causes import cause_of_error
from launch.state.evaluation import is_finished
from launch.state.paths import LaunchFolder, ResultsFolder
from launch.state.stop import StopRequest
from launch.worker import method
from launch.worker.protocol import FindCause, Outcome
from launch.worker.rendezvous import Rendezvous


@dataclass(frozen=True, kw_only=True)
class InferenceWorker:
    """A worker of inferences. Its state is in the journals of the results; one opened inference serves all shards."""

    inferences: tuple[InferConfig, ...]
    """One, or those of a study's checkpoints."""
    folder: LaunchFolder
    """Of the one's results, or of the study's evaluation."""

    def work(self, stop: StopRequest, environment: Environment, rendezvous: Rendezvous) -> Outcome:
        """Answer the shards that no other worker is at, one after the other, until each was done or taken.

        A mistake of the user in one inference, as a damaged checkpoint, keeps none of the others from being done; then
        the first is raised.
        """
        mistakes = []
        for place in range(len(self.inferences)):
            try:
                outcome = self._answer(place, stop, environment)
            except UserError as error:
                mistakes.append(error)
                continue
            if outcome is Outcome.STOPPED:
                environment.leave(environment.cause_of_stop(stop))
            if outcome is not Outcome.DONE:
                return outcome
        if mistakes:
            raise mistakes[0]
        return Outcome.DONE

    def _answer(self, place: int, stop: StopRequest, environment: Environment) -> Outcome:
        """Answer what is left of one inference; one of several may be finished by now, and is not opened again."""
        config, inference = self.inferences[place], None
        results = ResultsFolder(config.results_folder)
        for shard in range(config.shards):
            if stop():
                return Outcome.STOPPED
            lock = results.shard_lock(shard)
            if not lock.try_acquire():
                continue
            try:
                HEARTBEAT.start("starting")
                if len(self.inferences) > 1 and is_finished(config):
                    return Outcome.DONE
                inference = inference or method.open_inference(config)
                end = inference.answer_shard(shard, HEARTBEAT.between_steps(stop))
            except Exception as error:
                cause, detail = cause_of_error(error)
                if cause != "node":
                    raise
                bad_nodes.mark(self.folder, place * config.shards + shard, environment.node, detail)
                print(f"error: node {environment.node} is broken: {detail}", file=sys.stderr)
                return Outcome.BROKEN
            finally:
                HEARTBEAT.idle("between shards")
                lock.release()
            if end == "stopped":
                return Outcome.STOPPED
        return Outcome.DONE

    def follow(self, stop: StopRequest, rendezvous: Rendezvous) -> None:
        """Each worker infers alone: launch/infer.py refuses more than one rank."""
        raise AssertionError(f"an inference has one rank, not {rendezvous.count}")

    def nodes_at_work(self) -> set[str]:
        """The journals do not name their nodes."""
        return set()

    def close_lost(self, job: str, since: float, find_cause: FindCause) -> bool:
        """A worker that died leaves nothing open: the images that it had not done are missing in the journals."""
        return False
