"""The smallest run that still goes through every part of the method.

As a script it is launch/sweep.py with that method, for Slurm's tasks, which have nothing of tests/ but this file.
"""

import dataclasses
from pathlib import Path
from typing import Any

from fsr.config import TrainConfig, synthetic

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


def train(config: TrainConfig, *run: Any, **hooks: Any) -> str:
    """The real training loop on a study's configuration made tiny."""
    from launch.attempt import train

    return train(dataclasses.replace(config, **TINY, eval_every=20, log_every=1), *run, **hooks)


def flags(config: TrainConfig) -> list[str]:
    """The command line that gives this configuration, from the synthetic preset."""
    preset = synthetic().to_json()
    changed = {name: value for name, value in config.to_json().items() if value != preset[name]}
    return ["synthetic", *(word for name, value in changed.items() for word in (f"--{name}", str(value)))]


if __name__ == "__main__":
    from launch.sweep import main

    main(train=train)
