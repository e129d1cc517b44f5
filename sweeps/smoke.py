"""Does everything work here? A small search over mask ratio and momentum on the synthetic data set.

Command    make sweep   (python launch/sweep.py --study smoke --data_folder data/synthetic)
Hardware   2 CPU cores
Hours      3 min 25 s with drawing the data set (2026-11-22, AMD EPYC 7003 without AMX)
Expected   .12 to .21 segmentation mIoU; runs this short say nothing about the method
"""

from launch.study import Study, together
from sweeps import mask_ratio, momentum

study = Study(
    name="smoke",
    **together(mask_ratio.study, momentum.study),
    trials=6,
    parallel=2,
    dataset="synthetic",
    settings={"iterations": 48, "eval_every": 24, "log_every": 6},
)
