"""Does everything work here? A small search over mask ratio and momentum on the synthetic data set.

Command    make sweep   (.venv/bin/fsr sweep --study smoke --data_folder data/synthetic)
Hardware   2 CPU cores
Hours      3 min 17 s, without drawing the data set (2026-11-22, AMD EPYC 7003 without AMX)
Expected   .14 to .15 segmentation mIoU; runs this short say nothing about the method
"""

from launch.study import Study, together
from sweeps import mask_ratio, momentum

study = Study(
    name="smoke",
    **together(mask_ratio.study, momentum.study),
    trials=6,
    parallel=2,
    dataset="synthetic",
    settings={"iterations": 40, "eval_every": 20, "log_every": 5, "workers": 0},
)
