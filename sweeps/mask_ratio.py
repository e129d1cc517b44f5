"""How much of the student's second view should be masked?

Searches the fraction of masked blocks from .05 to .95; an even grid comes first, then the sampler refines it.

Command    .venv/bin/fsr sweep --study mask_ratio --data_folder DIR
Hardware   one run of the VOC preset: 4 micro-batches x 2 images a step, on 4, 2 or 1 GPUs
Hours      not yet measured
Expected   trial 0 is the paper's setting (.4); its score here is not yet measured
Measured   synthetic set, 240 steps (docs/results.md): .8 and .2 against .4, five fresh seeds: +.001 ± .031
           and +.003 ± .017 mIoU
"""

from optuna import Trial

from fsr.config import TrainConfig
from launch.study import Settings, Study

GRID = (0.2, 0.6, 0.1, 0.8, 0.3, 0.5, 0.7)


def suggest(trial: Trial, base: TrainConfig) -> Settings:
    return {"mask_ratio": trial.suggest_float("mask_ratio", 0.05, 0.95)}


study = Study(
    name="mask_ratio",
    suggest=suggest,
    known=lambda base: [{"mask_ratio": ratio} for ratio in (base.mask_ratio, *GRID)],
    trials=16,
)
