"""The noise filter against EM on the losses themselves, pixel by pixel."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from test_contrast import small
from test_step import Side, batch_of

from fsr import step as step_module
from fsr.config import synthetic
from fsr.errors import UserError
from fsr.losses.noise_filter import BINS, noisy_pixels
from fsr.losses.segmentation import segmentation_loss
from fsr.masking import block_noise

SIDE = 40


def draw(rng: np.random.Generator, clean: float, noisy: float, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Losses about two levels, and labels of which a third is background or ignored; there the losses lie anywhere."""
    loss = np.abs(rng.normal(np.where(rng.random((SIDE, SIDE)) < share, noisy, clean), 0.3 + rng.random()))
    label = rng.choice([0, 255, 3, 5, 9, 9], (SIDE, SIDE))
    loss[(label == 0) | (label == 255)] *= 4
    return loss.astype(np.float32), label


def reference(losses: np.ndarray) -> tuple[float, np.ndarray]:
    """How far two means are apart, and the posterior of the larger, by 20 rounds of EM on the raw losses."""
    responsible = np.stack([losses <= losses.mean(), losses > losses.mean()]).astype(float)
    for _ in range(20):
        weights, means, variances = [], [], []
        for each in responsible:
            weights.append(each.sum() / len(losses))
            means.append((each * losses).sum() / each.sum())
            variances.append((each * (losses - means[-1]) ** 2).sum() / each.sum() + 1e-3)
        density = np.stack(
            [
                w * np.exp(-((losses - m) ** 2) / (2 * v)) / math.sqrt(2 * math.pi * v)
                for w, m, v in zip(weights, means, variances, strict=True)
            ]
        )
        responsible = density / density.sum(0)
    return abs(means[1] - means[0]), responsible[int(np.argmax(means))]


def test_the_filter_finds_the_pixels_that_em_on_the_losses_themselves_finds():
    rng = np.random.default_rng(0)
    levels = [(0.4, 4.0, 0.2), (0.2, 2.5, 0.4), (1.0, 1.5, 0.3), (0.1, 0.4, 0.5), (2.0, 8.0, 0.05), (0.5, 3.0, 0.3)]
    losses, labels = map(np.stack, zip(*(draw(rng, *level) for level in levels), strict=True))
    ours = noisy_pixels(torch.from_numpy(losses), torch.from_numpy(labels)).numpy()
    filtered = []
    for loss, label, found in zip(losses, labels, ours, strict=True):
        foreground = (label != 0) & (label != 255)
        assert not found[~foreground].any()
        values, found = loss[foreground].astype(float), found[foreground]
        apart, posterior = reference(values)
        wanted = (posterior > 0.95) & (apart > 1)
        filtered.append(wanted.sum())
        # A value may be judged as one that is at most a bin away.
        order, width = np.argsort(values), values.max() / BINS
        edges = values[order][1:][np.diff(wanted[order].astype(int)) != 0]
        near = (np.abs(values[:, None] - edges) <= width).any(1)
        assert (found == wanted)[~near].all()
        assert near.mean() < 0.05
    assert filtered[0] > 100 and filtered[3] == 0, filtered


@pytest.mark.parametrize("label", [0, 255, 7])
@pytest.mark.parametrize("loss", [0.0, 3.0])
def test_nothing_is_noisy_where_there_is_no_foreground_or_all_losses_are_alike(label, loss):
    shape = (2, 8, 8)
    assert not noisy_pixels(torch.full(shape, loss), torch.full(shape, label)).any()


def test_each_image_is_filtered_by_itself():
    rng = np.random.default_rng(1)
    (loss, label), (other, _) = draw(rng, 0.4, 4.0, 0.2), draw(rng, 2.0, 9.0, 0.5)
    alone = noisy_pixels(torch.from_numpy(loss)[None], torch.from_numpy(label)[None])
    both = noisy_pixels(torch.from_numpy(np.stack([loss, 5 * other])), torch.from_numpy(np.stack([label, label])))
    assert torch.equal(both[:1], alone) and alone.any()


def test_the_segmentation_loss_ignores_noisy_pixels():
    torch.manual_seed(0)
    label = torch.randint(0, 4, (1, 32, 32))
    logits = 8 * torch.nn.functional.one_hot(label, 4).permute(0, 3, 1, 2).float()
    wrong = torch.rand(1, 32, 32) < 0.1
    label[wrong] = label[wrong] % 3 + 1  # a wrong foreground class, or 1 for background
    filtered = segmentation_loss(logits, label, filter_noise=True)
    assert torch.equal(filtered, segmentation_loss(logits, label.masked_fill(wrong, 255)))
    assert filtered < 0.1 * segmentation_loss(logits, label)


def test_the_filter_begins_at_its_fraction_of_the_run():
    config = dataclasses.replace(synthetic(), iterations=100)
    assert not any(config.filters_noise(step) for step in range(100))
    config = dataclasses.replace(config, noise_filter_from=0.4)
    assert [config.filters_noise(step) for step in range(100)] == [step >= 40 for step in range(100)]
    with pytest.raises(UserError, match=r"noise_filter_from must be in \[0, 1\], got 1.5"):
        dataclasses.replace(config, noise_filter_from=1.5)


def test_the_step_filters_for_the_segmentation_loss_alone(monkeypatch):
    config = small(noise_filter_from=0.5)
    side, seen = Side(config), {}

    def noted(name, loss):
        def call(*arguments, **options):
            seen.setdefault(name, []).append((arguments[-1].clone(), options))
            return loss(*arguments, **options)

        return call

    for name in ("segmentation_loss", "energy_loss"):
        monkeypatch.setattr(step_module, name, noted(name, getattr(step_module, name)))
    torch.manual_seed(0)
    batch, noise = batch_of(2), block_noise(2, config)
    for step in (24, 25):
        step_module.step_losses(side.student, side.teacher, side.reinforcement, batch, noise, step, config)
    assert [options for _, options in seen["segmentation_loss"]] == [{"filter_noise": False}, {"filter_noise": True}]
    for (ours, _), (theirs, _) in zip(seen["segmentation_loss"], seen["energy_loss"], strict=True):
        assert torch.equal(ours, theirs)
