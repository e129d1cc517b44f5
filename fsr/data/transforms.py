"""The random views of an image, and its normalisation."""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from fsr.config import TrainConfig

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

SOLARISE_P = 0.2

_MEAN = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
_STD = torch.tensor(IMAGENET_STD).view(3, 1, 1)

View = Callable[[Image.Image], torch.Tensor]


def normalise(image: Image.Image) -> torch.Tensor:
    """An RGB picture as the networks take it, float32 [3, H, W]: (x / 255 - mean) / std."""
    return normalise_levels(levels(image).float())


def levels(image: Image.Image) -> torch.Tensor:
    """The 8-bit levels of an RGB picture, uint8 [3, H, W]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def levels_within(most_pixels: int, image: Image.Image) -> torch.Tensor:
    """The same of a picture that is made smaller, in its proportions, if it has more pixels."""
    scale = math.sqrt(most_pixels / (image.width * image.height))
    if scale < 1:
        size = max(1, round(scale * image.width)), max(1, round(scale * image.height))
        image = image.resize(size, Image.Resampling.BICUBIC)
    return levels(image)


def normalise_levels(levels: torch.Tensor) -> torch.Tensor:
    """The same of 8-bit levels float32 [..., 3, H, W], in their place."""
    mean, std = _statistics(levels.device)
    return levels.div_(255).sub_(mean).div_(std)


def denormalise(view: torch.Tensor) -> torch.Tensor:
    """The inverse, in 8-bit levels: network input [..., 3, H, W] to 0..255, not rounded."""
    scale, offset = _levels(view.dtype, view.device)
    return view * scale + offset


@lru_cache
def _statistics(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation, cached like `_levels`."""
    return _MEAN.to(device), _STD.to(device)


@lru_cache
def _levels(dtype: torch.dtype, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Standard deviation and mean in 8-bit levels. Cached, because copying them to a GPU makes the host wait."""
    return 255 * _STD.to(device, dtype), 255 * _MEAN.to(device, dtype)


def global_view(config: TrainConfig) -> View:
    """Draws one of the two views: RGB picture → float32 [3, S, S], normalised. Consumes the global generators."""
    steps = [
        random_crop(config.crop_size, config.crop_area),
        transforms.RandomHorizontalFlip(),
        transforms.RandomApply([colour_jitter()], p=0.5),
    ]
    if config.use_gauss:
        steps.append(transforms.RandomApply([GaussianBlur()], p=0.1))
    if config.use_solar:
        steps.append(transforms.RandomSolarize(threshold=128, p=SOLARISE_P))
    if config.use_aa:
        # timm takes seconds to import, and only this option needs it here.
        from timm.data.auto_augment import rand_augment_transform
        from timm.data.random_erasing import RandomErasing

        grey = tuple(round(255 * mean) for mean in IMAGENET_MEAN)
        # Magnitudes are drawn around 9; from 10 on timm posterises to 0 bits, which Pillow refuses.
        limits = {"translate_const": int(0.45 * config.crop_size), "img_mean": grey, "magnitude_max": 9.99}
        steps.append(rand_augment_transform("rand-m9-mstd0.5-inc1", limits))
        erasing = RandomErasing(0.25, mode="pixel", device="cpu")  # type: ignore[no-untyped-call]  # timm gives it none
        return _composed([*steps, normalise, erasing])
    return _composed([*steps, normalise])


def local_view(config: TrainConfig) -> View:
    """Draws a small crop for the student: RGB picture → float32 [3, S', S'], normalised."""
    return _composed(
        [
            random_crop(config.local_crop_size, config.local_crop_area),
            transforms.RandomHorizontalFlip(),
            transforms.RandomApply([colour_jitter()], p=0.8),
            transforms.RandomGrayscale(0.2),
            transforms.RandomApply([GaussianBlur()], p=0.5),
            normalise,
        ]
    )


def _composed(steps: list[Callable[..., Any]]) -> View:
    view: View = transforms.Compose(steps)
    return view


def random_crop(size: int, area: tuple[float, float]) -> transforms.RandomResizedCrop:
    """Cuts out a part of a picture that covers `area` of it, and makes it `size` pixels wide and high."""
    return transforms.RandomResizedCrop(size, scale=area, interpolation=InterpolationMode.BICUBIC)


def colour_jitter() -> transforms.ColorJitter:
    """The change of brightness, contrast, saturation and hue, in a random order."""
    return transforms.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)


class GaussianBlur:
    """Blurs a picture with a radius drawn from .1 to 2 pixels."""

    def __call__(self, image: Image.Image) -> Image.Image:
        """The blurred picture, same size."""
        radius = torch.empty(1).uniform_(0.1, 2.0).item()
        return image.filter(ImageFilter.GaussianBlur(radius))
