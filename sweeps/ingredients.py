"""Which ingredients of later methods help, each alone and the best together?

Each of eight is off, or one of its options is on (docs/training.md). The first trials are the method without any, and
each option alone; with more `--trials` the sampler combines those that were good. The same options are tested over
paired seeds by `make claims ARGS="--table ingredients"`.

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

OFF = "off"
INGREDIENTS: Mapping[str, Mapping[str, Settings]] = {
    "swapped_assignment": {
        "student": {"w_swap": 0.05},
        "teacher": {"w_swap": 0.05, "pseudo_label_from": "teacher"},
    },
    "thresholds": {"cosine": {"threshold_rule": "cosine"}, "mixture": {"threshold_rule": "mixture"}},
    "noise_filter": {"on": {"noise_filter_from": 0.4}},
    "class_token_contrast": {"on": {"w_contrast": 0.5}},
    "separate_and_conquer": {"on": {"w_seco": 0.1}},
    "source_of_cams": {"aux_then_top": {"cam_source": "aux_then_top"}},
    "uncertain_blocks": {"area": {"block_uncertainty": "area"}},
    "class_token": {"unmasked": {"cls_attends": "unmasked"}},
}
"""By ingredient and option, what it changes of a run."""

OPTIONS = [(ingredient, option) for ingredient, options in INGREDIENTS.items() for option in options]


def together(*chosen: tuple[str, str]) -> dict[str, Any]:
    """What some ingredients' options change, all at once."""
    return {field: value for name, option in chosen for field, value in INGREDIENTS[name][option].items()}


def suggest(trial: Trial, base: TrainConfig) -> Settings:
    drawn = {name: trial.suggest_categorical(name, [OFF, *options]) for name, options in INGREDIENTS.items()}
    return together(*((name, option) for name, option in drawn.items() if option != OFF))


def known(base: TrainConfig) -> list[Settings]:
    none: Settings = dict.fromkeys(INGREDIENTS, OFF)
    return [none, *(none | {name: option} for name, option in OPTIONS)]


study = Study(
    name="ingredients",
    suggest=suggest,
    known=known,
    trials=1 + len(OPTIONS),
    sampler=joint_tpe,
    pruner=unpruned,
)
