"""Which ingredients of later methods help, each alone and the best together?

Each ingredient is on or off. The first trials are the method without any, each alone, and all together; with more
`--trials` the sampler combines those that were good. benchmarks/claims tests the same ingredients over paired seeds.

Command    .venv/bin/fsr sweep --study ingredients --data_folder DIR --repeat 8 --best all
Hardware   one run of the VOC preset: 4 micro-batches x 2 images a step, on 4, 2 or 1 GPUs
Hours      not yet measured
Expected   trial 0 is the paper's setting; its score here is not yet measured
"""

from collections.abc import Mapping
from typing import Any

from optuna import Trial

from fsr.config import TrainConfig
from launch.study import Settings, Study, joint_tpe, unpruned

INGREDIENTS: Mapping[str, Settings] = {
    "area": {"block_uncertainty": "area"},
    "unmasked": {"cls_attends": "unmasked"},
}


def together(*names: str) -> dict[str, Any]:
    """What some ingredients change, all at once."""
    return {field: value for name in names for field, value in INGREDIENTS[name].items()}


def suggest(trial: Trial, base: TrainConfig) -> Settings:
    return together(*(name for name in INGREDIENTS if trial.suggest_categorical(name, [False, True])))


def known(base: TrainConfig) -> list[Settings]:
    sets = [(), *((name,) for name in INGREDIENTS), tuple(INGREDIENTS)]
    return [{name: name in chosen for name in INGREDIENTS} for chosen in sets]


study = Study(
    name="ingredients",
    suggest=suggest,
    known=known,
    trials=2 + len(INGREDIENTS),
    sampler=joint_tpe,
    pruner=unpruned,
)
