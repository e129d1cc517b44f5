"""The smallest run that still goes through every part of the method.

It can stand in for launch/worker/method.py.
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsr.config import TrainConfig, synthetic
from fsr.errors import NotFiniteError
from fsr.run import Run

if TYPE_CHECKING:
    from fsr.data.source import Source

TINY = {
    "crop_size": 32,
    "block_size": 8,
    "embed_dim": 16,
    "depth": 3,
    "heads": 2,
    "decoder_width": 8,
    "projector_hidden": 16,
    "projector_bottleneck": 8,
    "out_dim": 16,
    "drop_path": 0.1,
    "batch_size": 2,
    "save_every": 5,
    "pictures": 1,
    "workers": 0,
    "fsr_from": 0.0,
}


def tiny_config(data_folder: Path, **changes: Any) -> TrainConfig:
    """Ten steps of a network of a few thousand weights; all losses count from the third step on."""
    steps = {"iterations": 10, "eval_every": 4, "log_every": 3}
    return dataclasses.replace(synthetic(data_folder), **(TINY | steps | changes))


def source_of(config: TrainConfig) -> "Source":
    """The data set of a configuration."""
    from fsr.data.source import open_source

    return open_source(config.dataset, config.data_folder, config.list_folder, config.num_classes)


def train(config: TrainConfig, run: Run, *, stop_requested: Callable[[], bool], prune: Callable[..., bool]) -> str:
    """The real training loop on a study's configuration made tiny.

    A file of the data folder that is called like the run's folder may hold one word: `slow` leaves time to disturb the
    run, `prune` and `fail` end it by its first evaluation. A file `workers` holds the number of its loader workers.
    """
    from fsr import distributed
    from fsr.train import train

    file = config.data_folder / run.folder.name
    word = file.read_text() if file.exists() else ""

    def stop() -> bool:
        time.sleep(0.5 if word == "slow" else 0)
        return stop_requested()

    def end(step: int, scores: dict[str, float]) -> bool:
        if word == "fail":
            raise NotFiniteError(f"not finite at step {step}: as the test wants it")
        return prune(step, scores) or word == "prune"

    workers = config.data_folder / "workers"
    config = dataclasses.replace(config, **TINY, log_every=1)
    if workers.exists():
        config = dataclasses.replace(config, workers=int(workers.read_text()))
    outcome = train(config, run, stop_requested=stop, prune=end)
    distributed.stop()
    return outcome


def flags(config: TrainConfig, **others: object) -> list[str]:
    """The command line that gives this configuration, from the synthetic preset; with other values for some fields."""
    preset = synthetic().to_json()
    changed = {name: value for name, value in config.to_json().items() if value != preset[name]} | others
    return ["synthetic", *(word for name, value in changed.items() for word in (f"--{name}", str(value)))]
