"""Views finished on the device, beside those that a worker makes with torchvision and Pillow."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import default_collate
from torchvision.transforms import functional

from fsr.config import voc
from fsr.data.device_views import Drawn, DrawnView, on_device
from fsr.data.randomness import seeded
from fsr.data.transforms import denormalise, global_view, normalise

CPU = torch.device("cpu")
CHANGES = (
    functional.adjust_brightness,
    functional.adjust_contrast,
    functional.adjust_saturation,
    functional.adjust_hue,
)


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    """Colours of all kinds: smooth ones, and every tenth pixel any colour at all, grey and black among them."""
    generator = np.random.default_rng(0)
    smooth = Image.fromarray(generator.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize((160, 120), Image.BICUBIC)
    pixels = np.array(smooth)
    chosen = generator.random(pixels.shape[:2]) < 0.1
    pixels[chosen] = generator.integers(0, 256, (chosen.sum(), 3))
    pixels[:4], pixels[4:8] = 0, np.arange(160)[:, None]
    return Image.fromarray(pixels)


def drawn(
    picture: Image.Image, changes=(0, 0, 0, 0), amounts=(1.0, 1.0, 1.0, 1.0), flip=False, solarise=False
) -> Drawn:
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    switches = torch.tensor(flip), torch.tensor(solarise)
    return Drawn(pixels, switches[0], torch.tensor(changes), torch.tensor(amounts), switches[1])


def assert_same_levels(view: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal but for single values that are rounded the other way."""
    difference = (denormalise(view) - denormalise(expected)).round().abs()
    assert difference.max() <= 2
    assert (difference > 0).float().mean() < 1e-4


@pytest.mark.parametrize("amounts", [(0.6, 0.6, 0.8, -0.1), (1.4, 1.4, 1.2, 0.1), (0.93, 1.17, 1.05, 0.03)], ids=str)
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)], ids=str)
def test_colours_change_as_torchvision_changes_them_on_pictures(picture, order, amounts):
    expected = picture
    for change in order:
        expected = CHANGES[change](expected, amounts[change])
    levels = (*amounts[:3], int(amounts[3] * 255))
    batch = default_collate([drawn(picture), drawn(picture, order, tuple(float(levels[change]) for change in order))])
    untouched, changed = on_device(batch, CPU)
    assert_same_levels(changed, normalise(expected))
    assert torch.equal(untouched, normalise(picture))


def test_flips_and_solarisation_are_pillows(picture):
    batch = default_collate([drawn(picture, flip=True), drawn(picture, solarise=True)])
    flipped, solarised = on_device(batch, CPU)
    assert torch.equal(flipped, normalise(functional.hflip(picture)))
    assert torch.equal(solarised, normalise(functional.solarize(picture, 128)))


def test_the_views_are_those_that_a_worker_draws(picture):
    config = replace(voc(), crop_size=64, use_solar=True)
    ours, theirs = DrawnView(config), global_view(config)
    with seeded(0):
        samples = [ours(picture) for _ in range(60)]
        after = torch.rand(1)
    with seeded(0):
        expected = torch.stack([theirs(picture) for _ in range(60)])
        assert torch.equal(torch.rand(1), after)  # not a draw more or less
    batch = default_collate(samples)
    assert batch.picture.dtype == torch.uint8
    assert 15 < batch.flip.sum() < 45
    assert 15 < (batch.amounts != 1).any(1).sum() < 45
    assert 0 < batch.solarise.sum() < 30
    assert_same_levels(on_device(batch, CPU), expected)


@pytest.mark.gpu
def test_a_gpu_finishes_views_as_a_cpu_does(picture):
    with seeded(0):
        batch = default_collate([DrawnView(voc())(picture) for _ in range(8)])
    assert_same_levels(on_device(batch, torch.device("cuda")).cpu(), on_device(batch, CPU))
