"""Which recipe: how much affinity and weight decay, CAMs of which scales, aux features of which block?

The first trials change one of the four at a time; `--trials 135` tries all combinations.

Command    .venv/bin/fsr sweep --study recipe --data_folder DIR --repeat 8 --best all
Hardware   one run of the VOC preset: 4 micro-batches x 2 images a step, on 4, 2 or 1 GPUs
Hours      not yet measured
Expected   trial 0 is the paper's setting; its score here is not yet measured
"""

from launch.study import Study, grid

RECIPE = {
    "w_aff": (0.1, 0.2, 0.4, 0.8, 1.6),
    "weight_decay": (0.01, 0.05, 0.1),
    "cam_scales": ((1.0,), (1.0, 0.5), (1.0, 0.5, 1.5)),
    "aux_layer": (2, 3, 4),
}

study = Study(name="recipe", **grid(RECIPE), trials=11)
