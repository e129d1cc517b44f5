"""How large should a masked block be?

Tries every multiple of the patch that divides the crop into at least 2 x 2 blocks, each once.

Command    .venv/bin/fsr sweep --study block_size --data_folder DIR
Hardware   one run of the VOC preset: 4 micro-batches x 2 images a step, on 4, 2 or 1 GPUs
Hours      not yet measured
Expected   trial 0 is the paper's setting (64 pixels on VOC); its score here is not yet measured
Measured   synthetic set, 240 steps (docs/results.md): 24 against 16 pixels, four fresh seeds: +.010 ± .027 mIoU
"""

from optuna import Trial

from fsr.config import TrainConfig
from launch.study import Settings, Study


def choices(base: TrainConfig) -> list[int]:
    return [size for size in base.block_sizes() if 2 * size <= base.crop_size]


def suggest(trial: Trial, base: TrainConfig) -> Settings:
    return {"block_size": trial.suggest_categorical("block_size", choices(base))}


def known(base: TrainConfig) -> list[Settings]:
    others = [size for size in choices(base) if size != base.block_size]
    return [{"block_size": size} for size in (base.block_size, *others)]


study = Study(name="block_size", suggest=suggest, known=known, trials=5)
