"""The method, as a job calls it. It is imported inside the job alone: nothing else in launch needs torch."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from fsr.config import TrainConfig
from fsr.errors import UnreadableError
from fsr.inference.config import InferConfig
from fsr.run import Run

if TYPE_CHECKING:
    from fsr.infer import Inference

CANNOT_IMPORT = "the Python environment of {} must have what pyproject.toml asks for, but it cannot be imported: {}"


def train(
    config: TrainConfig,
    run: Run,
    *,
    stop_requested: Callable[[], bool],
    prune: Callable[[int, dict[str, float | None]], bool],
) -> Literal["finished", "stopped", "pruned"]:
    """Train a run as far as it goes; see `fsr.train.train`."""
    try:
        from fsr import distributed
        from fsr.train import train
    except (ImportError, OSError) as error:
        raise UnreadableError(CANNOT_IMPORT.format(sys.executable, error)) from error

    outcome = train(config, run, stop_requested=stop_requested, prune=prune)
    distributed.stop()  # the next trial of this process has a process group of its own
    return outcome


def open_inference(config: InferConfig) -> "Inference":
    """Open an inference, whose shards can then be answered; see `fsr.infer.Inference`."""
    try:
        from fsr.infer import Inference
    except (ImportError, OSError) as error:
        raise UnreadableError(CANNOT_IMPORT.format(sys.executable, error)) from error
    return Inference(config)
