"""How should the five weighted losses be balanced?

Searches w_class, w_patch, w_seg, w_reg and w_aff together, each log-uniformly from a quarter of its own value to four
times that value. A loss that is off stays off.

Command    .venv/bin/fsr sweep --study loss_weights --data_folder DIR
Hardware   one run of the VOC preset: 4 micro-batches x 2 images a step, on 4, 2 or 1 GPUs
Hours      not yet measured
Expected   trial 0 is the paper's setting (.1, .1, .1, .05, .2); its score here is not yet measured
Measured   synthetic set, 240 steps (docs/results.md): w_aff .75 against .2 (others changed a little), eight fresh
           seeds: +.078 ± .054 mIoU, CAM +.119 ± .051
"""

from optuna import Trial

from fsr.config import TrainConfig
from launch.study import Settings, Study, joint_tpe

WEIGHTS = ("w_class", "w_patch", "w_seg", "w_reg", "w_aff")


def own(base: TrainConfig) -> Settings:
    return {name: value for name in WEIGHTS if (value := getattr(base, name))}


def suggest(trial: Trial, base: TrainConfig) -> Settings:
    return {name: trial.suggest_float(name, value / 4, value * 4, log=True) for name, value in own(base).items()}


study = Study(
    name="loss_weights",
    suggest=suggest,
    known=lambda base: [own(base)],
    trials=40,
    sampler=joint_tpe,
)
