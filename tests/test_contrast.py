"""The class-token contrast: its crops and its loss against loops, and runs in which it is on."""

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_step import Side, batch_of
from tiny import tiny_config

from fsr.cam import multi_scale_cams
from fsr.compare import first_difference
from fsr.config import TrainConfig, voc
from fsr.cropping import cut_crops
from fsr.errors import UserError
from fsr.losses.contrast import contrast_loss
from fsr.masking import block_mask, block_noise
from fsr.run import Run
from fsr.step import step_losses
from fsr.train import train

TESTS = Path(__file__).parent
ON = {"w_contrast": 0.5, "contrast_crops": 2, "contrast_side": 2}


def small(**changes: Any) -> TrainConfig:
    """A small network, and crops of 3 patches; the contrasts count from step 10 on."""
    sizes = {"embed_dim": 32, "depth": 3, "heads": 2, "num_classes": 6, "crop_size": 64, "block_size": 16}
    sizes |= {"patch_size": 8, "decoder_width": 16, "projector_hidden": 16, "projector_bottleneck": 16, "out_dim": 16}
    own = {"pretrained": "none", "weight_init": "fan_in", "drop_path": 0.0, "iterations": 50, "contrast_side": 3}
    return dataclasses.replace(voc(), **(sizes | own | changes))


@pytest.fixture
def config() -> TrainConfig:
    """A run in which the contrast is on."""
    return small(w_contrast=0.5)


def plain_crops(view, label, noise, config):
    """Crops and whether they fit, of one image: patches in the order of their draw, those wanted first."""
    grid, side, patch = len(label), config.contrast_side, config.patch_size
    crops, fits = [], []
    for wanted in (255, 0):
        places = [(y, x) for y in range(grid) for x in range(grid)]
        places.sort(key=lambda place: (label[place] == wanted, noise[place[0] * grid + place[1]]), reverse=True)
        for y, x in places[: config.contrast_crops]:
            top, left = (min(max(at - side // 2, 0), grid - side) * patch for at in (y, x))
            crops.append(view[:, top : top + side * patch, left : left + side * patch])
            fits.append(bool(label[y, x] == wanted))
    return torch.stack(crops), torch.tensor(fits)


def plain_loss(crops, whole, fits, temperature=0.5):
    """The loss of crops [B, 2N, D]; a crop that does not fit is left out, and so is an image without both kinds."""
    of_images = []
    for own, image, fit in zip(crops.tolist(), whole.tolist(), fits.tolist(), strict=True):
        half = len(own) // 2
        scores = [math.exp(sum(a * b for a, b in zip(crop, image, strict=True)) / temperature) for crop in own]
        positive = [score for score, counts in zip(scores[:half], fit[:half], strict=True) if counts]
        negative = [score for score, counts in zip(scores[half:], fit[half:], strict=True) if counts]
        if positive and negative:
            each = [-math.log(score / (score + sum(negative))) for score in positive]
            of_images.append(sum(each) / len(each))
    return sum(of_images) / len(of_images) if of_images else 0.0


@pytest.mark.parametrize("side", [1, 3, 4, 8])
def test_crops_are_cut_as_loops_cut_them(config, side):
    config = dataclasses.replace(config, contrast_side=side)
    draw = torch.Generator().manual_seed(side)
    views, noise = torch.randn(5, 3, 64, 64, generator=draw), torch.rand(5, 64, generator=draw)
    values = torch.tensor([0, 255, 3])
    label = values[torch.randint(3, (5, 8, 8), generator=draw)]
    label[1] = 0  # nothing uncertain
    label[2] = 255  # no background
    label[3] = 3  # neither
    label[4, 0, :2], label[4, 0, 2:], label[4, 1:] = 255, 0, 4  # less uncertain patches than crops, all at the border
    ours = cut_crops(views, label, (label == 255, label == 0), noise, config)
    assert ours.images.shape == (5 * 8, 3, side * 8, side * 8)
    for i in range(5):
        crops, fits = plain_crops(views[i], label[i], noise[i], config)
        assert torch.equal(ours.fits[i].flatten(), fits)
        assert torch.equal(ours.images.unflatten(0, (5, 8))[i][fits], crops[fits])
    assert ours.fits.sum((1, 2)).tolist() == [8, 4, 4, 0, 6]
    for kind, tag in enumerate((255, 0)):
        assert (ours.tags[:, kind] == tag)[ours.fits[:, kind]].all()


def test_the_loss_is_that_of_loops():
    draw = torch.Generator().manual_seed(0)
    crops = F.normalize(torch.randn(6, 8, 5, generator=draw), dim=2)
    whole = F.normalize(torch.randn(6, 5, generator=draw), dim=1)
    fits = torch.rand(6, 8, generator=draw) < 0.5
    fits[1], fits[2, :4], fits[3, 4:] = True, False, False
    fits[4], fits[5] = False, torch.tensor([0, 0, 1, 0, 0, 0, 0, 1]).bool()
    fit = fits.unflatten(1, (2, 4))
    for i in range(6):
        ours = contrast_loss(crops[i], whole[i : i + 1], fit[i : i + 1])
        assert ours.item() == pytest.approx(plain_loss(crops[i : i + 1], whole[i : i + 1], fits[i : i + 1]), rel=1e-5)
    assert contrast_loss(crops.flatten(0, 1), whole, fit).item() == pytest.approx(plain_loss(crops, whole, fits))


def test_an_image_without_both_kinds_of_crops_and_a_crop_that_does_not_fit_have_no_gradient():
    crops = F.normalize(torch.randn(3, 4, 5), dim=2).requires_grad_()
    fits = torch.tensor([[1, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0]]).bool()
    whole = F.normalize(torch.randn(3, 5), dim=1)
    contrast_loss(crops.flatten(0, 1), whole, fits.unflatten(1, (2, 2))).backward()
    assert (crops.grad != 0).any(2).tolist() == [[True, False, True, True], [False] * 4, [False] * 4]


def test_the_step_contrasts_the_students_crops_with_the_teachers_view(config):
    side, batch = Side(config), batch_of(2)
    with torch.no_grad():
        for weight in side.teacher.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    torch.manual_seed(3)
    losses = step_losses(side.student, side.teacher, side.reinforcement, batch, block_noise(2, config), 30, config)
    torch.manual_seed(3)
    block_noise(2, config)
    noise = torch.rand(2, 64)
    aux_cam = multi_scale_cams(side.student, batch.view2, config.cam_scales)[1]
    value = (F.interpolate(aux_cam, size=(8, 8), mode="bilinear") * batch.labels[:, :, None, None]).amax(1)
    label = torch.full_like(value, 1).masked_fill(value <= 0.7, 255).masked_fill(value <= 0.25, 0)
    cut = [plain_crops(*image, config) for image in zip(batch.view2, label, noise, strict=True)]
    crops, fits = map(torch.stack, zip(*cut, strict=True))

    def embedded(network, images):
        token = network.encoder.class_token(network.encoder(images).last)
        return F.normalize(network.projector.mlp(token), dim=1)

    with torch.no_grad():
        student = embedded(side.student, crops.flatten(0, 1)).unflatten(0, (2, 8))
        teacher = embedded(side.teacher, batch.view2)
    assert fits.any()
    assert losses["contrast"].item() == pytest.approx(plain_loss(student, teacher, fits), rel=1e-4)
    others = sum(config.loss_weights(30)[name] * losses[name] for name in losses if name not in ("contrast", "loss"))
    assert losses["loss"].item() == pytest.approx((others + 0.5 * losses["contrast"]).item())


def test_it_counts_from_its_fraction_of_the_run_and_has_a_name_only_where_it_is_on(config):
    weights = [config.loss_weights(step)["contrast"] for step in range(50)]
    assert weights == [0.5 * (step >= 10) for step in range(50)]
    assert config.losses == ("loss", "cls_top", "cls_aux", "class", "patch", "aff", "seg", "reg", "contrast")
    assert dataclasses.replace(config, w_contrast=0.0).losses == config.losses[:-1]


def test_a_cam_that_the_contrast_reads_does_not_lead_random_masks(config, monkeypatch):
    config = dataclasses.replace(config, contrast_from=0.0)
    led = []

    def spied(noise, uncertain, config):
        led.append(uncertain is not None)
        return block_mask(noise, uncertain, config)

    monkeypatch.setattr("fsr.step.block_mask", spied)
    side = Side(config)
    for step in (9, 10):
        step_losses(side.student, side.teacher, side.reinforcement, batch_of(2), torch.rand(2, 16), step, config)
    assert led == [False, True]


@pytest.mark.parametrize("changes", [{"use_mim": False}, {"contrast_from": 0.0}])
def test_it_needs_neither_masks_nor_that_the_cam_leads_them(config, changes):
    config = dataclasses.replace(config, **changes)
    side = Side(config)
    losses = step_losses(side.student, side.teacher, side.reinforcement, batch_of(2), torch.rand(2, 16), 9, config)
    assert (losses["contrast"] > 0) == ("contrast_from" in changes)
    losses = step_losses(side.student, side.teacher, side.reinforcement, batch_of(2), torch.rand(2, 16), 30, config)
    assert losses["contrast"] > 0


def test_where_it_is_off_nothing_is_drawn_for_it(config):
    config = dataclasses.replace(config, w_contrast=0.0)
    side, batch = Side(config), batch_of(2)
    before = torch.get_rng_state()
    losses = step_losses(side.student, side.teacher, side.reinforcement, batch, torch.rand(2, 16), 30, config)
    drawn = torch.get_rng_state()
    torch.set_rng_state(before)
    torch.rand(2, 16)
    assert torch.equal(drawn, torch.get_rng_state())
    assert set(losses) == set(config.losses)


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"contrast_side": 9}, "contrast_side must be at most 8, the patches on a side of the crop, got 9"),
        ({"contrast_crops": 65}, "contrast_crops must be at most 64, the patches of the crop, got 65"),
    ],
)
def test_crops_that_no_view_has_are_refused_only_where_it_is_on(config, changes, sentence):
    dataclasses.replace(config, w_contrast=0.0, **changes)
    with pytest.raises(UserError) as error:
        dataclasses.replace(config, **changes)
    assert str(error.value) == sentence


def test_a_run_with_both_options_resumes_bit_identically(synthetic_folder, tmp_path):
    config = tiny_config(synthetic_folder, noise_filter_from=0.4, **ON)
    whole, broken = Run(tmp_path / "whole"), Run(tmp_path / "broken")
    assert train(config, whole) == "finished"
    calls = iter(range(100))
    assert train(config, broken, stop_requested=lambda: next(calls) == 6) == "stopped"
    assert train(config, broken) == "finished"
    assert first_difference(broken, whole) is None
    last = [record for record in whole.metrics() if "train/loss" in record][-1]
    assert last["train/contrast"] > 0


@pytest.mark.slow
def test_ranks_that_share_the_micro_batches_learn_the_same(synthetic_folder, tmp_path):
    changes = {"ranks": 2, "iterations": 6, "noise_filter_from": 0.4, "log_every": 1} | ON
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    found = []
    for processes in (1, 2):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        run = Run(tmp_path / str(processes))
        script = [TESTS / "ddp_run.py", synthetic_folder, run.folder, "0", json.dumps(changes)]
        subprocess.run([*command, *map(str, script)], check=True, env=environment, capture_output=True, timeout=300)
        found.append(run.metrics())
    alone, shared = found
    for record, twin in zip(alone, shared, strict=True):
        for name in (name for name in record if name.startswith("train/")):
            assert twin[name] == pytest.approx(record[name], rel=1e-3, abs=1e-6), (record["step"], name)
