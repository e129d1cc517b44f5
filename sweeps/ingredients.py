"""Which ingredients of later methods help, each alone and the best together?

The first trials are the method without any, each alone, and all together (of those that exclude each other, the first);
with more `--trials` the sampler combines those that were good. `make claims ARGS="--table ingredients"` tests the same.

Command    .venv/bin/fsr sweep --study ingredients --data_folder DIR --repeat 8 --best all
Hardware   one run of the VOC preset: 4 micro-batches x 2 images a step, on 4, 2 or 1 GPUs
Hours      not yet measured
Expected   trial 0 is the paper's setting; its score here is not yet measured
"""

from collections.abc import Iterable, Mapping

from optuna import Trial

from fsr.config import TrainConfig
from launch.study import Settings, Study, joint_tpe, unpruned

# Those of one slot exclude each other.
SLOTS: tuple[Mapping[str, Settings], ...] = (
    {"area": {"block_uncertainty": "area"}},
    {"unmasked": {"cls_attends": "unmasked"}},
)
INGREDIENTS = {name: fields for slot in SLOTS for name, fields in slot.items()}
OFF = "off"


def together(*names: str) -> Settings:
    """What some ingredients change, all at once."""
    return {field: value for name in names for field, value in INGREDIENTS[name].items()}


def parameter(slot: Iterable[str]) -> str:
    """What a slot's parameter is called."""
    return "_or_".join(slot)


def suggest(trial: Trial, base: TrainConfig) -> Settings:
    chosen = [trial.suggest_categorical(parameter(slot), [OFF, *slot]) for slot in SLOTS]
    return together(*(name for name in chosen if name != OFF))


def known(base: TrainConfig) -> list[Settings]:
    sets = [(), *((name,) for name in INGREDIENTS), tuple(next(iter(slot)) for slot in SLOTS)]
    return [
        {parameter(slot): next((name for name in slot if name in chosen), OFF) for slot in SLOTS} for chosen in sets
    ]


study = Study(
    name="ingredients",
    suggest=suggest,
    known=known,
    trials=2 + len(INGREDIENTS),
    sampler=joint_tpe,
    pruner=unpruned,
)
