"""What is drawn of a plain picture, as large as it is shown: the network may have seen a smaller copy of it.

A large picture is drawn in strips, so that its float32 pixels are never in memory at once.
"""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fsr.data.transforms import levels
from fsr.pictures import heat, overlay, pixels_of

_STRIP = 128  # rows


def labels_as_shown(labels: np.ndarray, picture: Image.Image) -> np.ndarray:
    """A label map, uint8 [h, w], as large as the picture: each pixel has the label of the nearest one."""
    return np.asarray(Image.fromarray(labels).resize(picture.size, Image.Resampling.NEAREST))


def overlay_as_shown(picture: Image.Image, labels: np.ndarray) -> Tensor:
    """The picture under the colours of its label map, uint8 [H, W] to [H, W, 3]."""
    return _in_strips(picture, labels, overlay)


def heat_as_shown(picture: Image.Image, cam: np.ndarray) -> Tensor:
    """The picture under a CAM, whose levels are uint8 [h, w]: uint8 [H, W, 3]."""
    whole = np.asarray(Image.fromarray(cam).resize(picture.size, Image.Resampling.BILINEAR))
    return _in_strips(picture, whole, lambda pixels, level: heat(pixels, level / 255))


def _in_strips(picture: Image.Image, layer: np.ndarray, draw: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    drawn = torch.empty(picture.height, picture.width, 3, dtype=torch.uint8)
    for top in range(0, picture.height, _STRIP):
        bottom = min(top + _STRIP, picture.height)
        pixels = levels(picture.crop((0, top, picture.width, bottom))) / 255
        drawn[top:bottom] = pixels_of(draw(pixels, torch.from_numpy(layer[top:bottom].copy())))
    return drawn
