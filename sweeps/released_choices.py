"""Which choices of the released code matter, where it differs from the paper or a sounder choice is known?

Six choices of two values each. The first trials are the released code, each other choice alone, and all six together;
`--trials 64` tries all combinations. drop_path_in_targets does nothing where drop_path is 0, as on the synthetic set.

Command    .venv/bin/fsr sweep --study released_choices --data_folder DIR --repeat 8 --best all
Hardware   one run of the VOC preset: 4 micro-batches x 2 images a step, on 4, 2 or 1 GPUs
Hours      not yet measured
Expected   trial 0 is the released code; its score here is not yet measured
"""

from launch.study import Study, grid

CHOICES = {
    "drop_path_in_targets": (True, False),
    "block_uncertainty": ("pixel", "area"),
    "cls_attends": ("all", "unmasked"),
    "cls_lr_factor": (1.0, 10.0),
    "image_levels": ("truncate", "round"),
    "uncertain_from": (0.2, 0.0),  # masks ignore the CAM in the first fifth, or never
}

study = Study(name="released_choices", **grid(CHOICES), trials=8)
