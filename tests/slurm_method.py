"""The real method, made small, for Slurm's tasks. As a script it is launch/sweep.py with it."""

import dataclasses

from launch.attempt import train as train_whole

TINY = {
    "crop_size": 32,
    "block_size": 8,
    "embed_dim": 16,
    "depth": 3,
    "heads": 2,
    "decoder_width": 8,
    "projector_hidden": 16,
    "projector_bottleneck": 8,
    "out_dim": 16,
    "batch_size": 2,
    "eval_every": 20,
    "log_every": 1,
    "save_every": 5,
    "pictures": 1,
    "workers": 0,
}


def train(config, run, **hooks):
    return train_whole(dataclasses.replace(config, **TINY), run, **hooks)


if __name__ == "__main__":
    from launch.sweep import main

    main(train=train)
