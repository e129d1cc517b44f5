"""Where the crops of the class-token contrast are cut."""

from typing import NamedTuple

import torch
from torch import Tensor

from fsr.config import TrainConfig
from fsr.data.images import IGNORED


class ContrastCrops(NamedTuple):
    """Crops of each image: N where its CAM is uncertain, then N from its background."""

    images: Tensor  # [B * 2N, 3, s, s], image by image
    fits: Tensor  # [B, 2N] (bool): false stands in where the image has too little of what the crop should show


def contrast_crops(view: Tensor, label: Tensor, noise: Tensor, config: TrainConfig) -> ContrastCrops:
    """Cut the crops of normalised views [B, 3, S, S] by a label map [B, n, n] of their patches, and a draw [B, n * n].

    A crop has a patch in its middle, and is moved inwards where it would leave the view. The middle patches are those
    with the largest draw among the ignored ones, which is uncertain, and among those of the background. Where there are
    too few, any other patch stands in, so that the number of crops is always the same.
    """
    side, patch = config.contrast_side, config.patch_size
    grid = label.shape[-1]
    wanted = torch.stack([label == IGNORED, label == 0], dim=1).flatten(2)  # [B, 2, n * n]
    centres = (noise[:, None] + wanted).topk(config.contrast_crops, dim=2).indices.flatten(1)  # [B, 2N]
    fits = wanted.gather(2, centres.unflatten(1, (2, -1))).flatten(1)
    pixels = torch.arange(side * patch, device=view.device)
    places = (centres // grid, centres % grid)
    rows, columns = (((at - side // 2).clamp(0, grid - side) * patch)[:, :, None] + pixels for at in places)
    images = torch.arange(len(view), device=view.device)[:, None, None, None]
    crops = view.permute(0, 2, 3, 1)[images, rows[:, :, :, None], columns[:, :, None]]  # [B, 2N, s, s, 3]
    return ContrastCrops(crops.flatten(0, 1).permute(0, 3, 1, 2), fits)
