"""From when on uncertain blocks are masked first, in steps and in pictures."""

import dataclasses
from pathlib import Path

import pytest
import torch
from tiny import tiny_config

from fsr import pictures, step
from fsr.data.loaders import evaluation_images
from fsr.data.voc import VocSource
from fsr.losses.self_reinforcement import SelfReinforcement
from fsr.masking import block_noise
from fsr.models.network import Network
from fsr.step import Batch, step_losses


@pytest.mark.parametrize("uncertain_from, looks", [(0.0, [0, 5, 9]), (0.2, [5, 9]), (0.6, [9]), (1.0, [])])
def test_only_steps_after_it_mask_by_the_cam(uncertain_from, looks, monkeypatch):
    config = tiny_config(Path("data"), uncertain_from=uncertain_from)
    network, looked = Network(config).train(), []
    blocks = step.uncertain_blocks
    monkeypatch.setattr(step, "uncertain_blocks", lambda *args: looked.append(now) or blocks(*args))
    views = torch.randn(2, 2, 3, 32, 32)
    batch = Batch(*views, torch.eye(8)[:2], [], 1)
    for now in (0, 5, 9):
        step_losses(network, network, SelfReinforcement(config.out_dim), batch, block_noise(2, config), now, config)
    assert looked == looks


def test_pictures_show_the_mask_of_the_end_of_training(synthetic_folder, monkeypatch):
    config = tiny_config(synthetic_folder)
    sample = next(iter(evaluation_images(config, VocSource(synthetic_folder), "val", 0, 1)))
    asked = []
    blocks = pictures.uncertain_blocks
    monkeypatch.setattr(pictures, "uncertain_blocks", lambda *args: asked.append(1) or blocks(*args))
    for uncertain_from, expected in ((0.2, 1), (0.95, 1), (1.0, 0)):
        asked.clear()
        changed = dataclasses.replace(config, uncertain_from=uncertain_from)
        pictures.draw(Network(changed), sample, changed, torch.device("cpu"))
        assert len(asked) == expected
