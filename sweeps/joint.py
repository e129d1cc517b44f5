"""Do momentum, masking and loss weights depend on one another?

Searches them together: the spaces of the studies momentum, mask_ratio, block_size and loss_weights.

Command    .venv/bin/fsr sweep --study joint --data_folder DIR
Hardware   one run of the VOC preset: 4 micro-batches x 2 images a step, on 4, 2 or 1 GPUs
Hours      not yet measured
Expected   trial 0 is the paper's setting; its score here is not yet measured
"""

from launch.study import Study, joint_tpe, together
from sweeps import block_size, loss_weights, mask_ratio, momentum

study = Study(
    name="joint",
    **together(momentum.study, mask_ratio.study, block_size.study, loss_weights.study),
    trials=64,
    sampler=joint_tpe,
)
