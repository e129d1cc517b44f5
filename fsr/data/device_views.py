"""Views that the workers only crop. Flip, colours and normalisation run on the device for a whole batch at once.

The draws are those of `global_view`, made by the worker from the sample's own generator, and the arithmetic is Pillow's
on 8-bit levels, step by step in its precisions: a view is the one that the worker would have made, but for one level in
few values of a million.
"""

from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fsr.config import TrainConfig
from fsr.data.transforms import SOLARISE_P, colour_jitter, normalise_levels, random_crop

# The changes of colour, numbered as in torchvision's ColorJitter.
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = range(4)


class Drawn(NamedTuple):
    """Cropped pictures and the random draws for them; a single one has no dimension B."""

    picture: Tensor  # [B, 3, S, S] uint8
    flip: Tensor  # [B] bool
    changes: Tensor  # [B, 4] the changes of colour in their order
    amounts: Tensor  # [B, 4] a factor for each, or for the hue how many of 256 levels it turns by
    solarise: Tensor  # [B] bool


class DrawnView:
    """Draws one of the two views, for `on_device` to finish. Consumes torch's global generator."""

    def __init__(self, config: TrainConfig) -> None:
        self.crop, self.jitter = random_crop(config.crop_size, config.crop_area), colour_jitter()
        self.use_solar = config.use_solar

    def __call__(self, image: Image.Image) -> Drawn:
        """A crop of an RGB picture, and the draws."""
        picture = torch.from_numpy(np.array(self.crop(image))).permute(2, 0, 1).contiguous()
        flip = torch.rand(1) < 0.5
        changes, amounts = torch.full((4,), _BRIGHTNESS), torch.ones(4)  # times 1: as it is
        if torch.rand(1) <= 0.5:
            jitter = self.jitter
            changes, *factors, hue = jitter.get_params(
                jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue
            )
            amounts = torch.tensor([*factors, int(hue * 255)])[changes]
        solarise = torch.rand(1) < SOLARISE_P if self.use_solar else torch.tensor([False])
        return Drawn(picture, flip[0], changes, amounts, solarise[0])


def on_device(drawn: Drawn, device: torch.device) -> Tensor:
    """The views float32 [B, 3, S, S], normalised, on `device`."""
    picture, *draws = (tensor.to(device, non_blocking=True) for tensor in drawn)
    flip, changes, amounts, solarise = (draw.view(len(picture), -1, 1, 1, 1) for draw in draws)
    levels = picture.float()
    levels = levels.flip(-1).where(flip[:, 0], levels)
    for change, amount in zip(changes.unbind(1), amounts.unbind(1), strict=True):
        levels = _changed(levels, change, amount)
    return normalise_levels((255 - levels).where(solarise[:, 0] & (levels >= 128), levels))


def _changed(levels: Tensor, change: Tensor, amount: Tensor) -> Tensor:
    """Levels [B, 3, S, S] after one change of colour of each picture; change and amount [B, 1, 1, 1].

    All but the hue's move the picture towards something simpler or away from it: black, its mean, its greys.
    """
    grey = _grey(levels)
    mean = grey.mean((1, 2, 3), keepdim=True, dtype=torch.float64).add(0.5).floor().float()
    simpler = torch.where(change == _CONTRAST, mean, grey * (change == _SATURATION))
    moved = (simpler + amount * (levels - simpler)).clamp(0, 255).floor()
    return torch.where(change == _HUE, _turned(levels, amount), moved)


def _grey(levels: Tensor) -> Tensor:
    """Pillow's luminance [B, 1, S, S]; below 2²⁴, so exact in float32."""
    red, green, blue = levels.chunk(3, dim=1)
    return ((19595 * red + 38470 * green + 7471 * blue + 32768) / 65536).floor()


def _turned(levels: Tensor, turn: Tensor) -> Tensor:
    """Levels [B, 3, S, S] with the hue turned by `turn` [B, 1, 1, 1] of 256 levels, through Pillow's 8-bit HSV.

    A hue that is truncated to the level below shows: six levels of a strong colour. Hence Pillow's mix of precisions.
    """
    value, lowest = levels.amax(1, keepdim=True), levels.amin(1, keepdim=True)
    spread = value - lowest
    red, green, blue = ((value - levels) / spread.clamp(min=1)).double().chunk(3, dim=1)
    sector = torch.where(levels[:, 1:2] == value, 2 + red - blue, 4 + green - red)
    sector = torch.where(levels[:, :1] == value, blue - green, sector)
    hue = _truncated((sector.float().double() / 6 + 1) % 1) * (spread > 0)
    saturation = _truncated(spread / value.clamp(min=1)) / 255
    place = (hue + turn) % 256 * 6 / 255  # in the circle of six sectors
    shift = torch.arange(5, 0, -2, device=levels.device).view(3, 1, 1)  # of red, green, blue
    distance = (place + shift) % 6
    return (value - value * saturation * distance.minimum(4 - distance).clamp(0, 1)).add(0.5).floor()


def _truncated(fraction: Tensor) -> Tensor:
    """Fractions as 8-bit levels float32."""
    return (fraction.float().double() * 255).floor().float()
