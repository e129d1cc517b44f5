"""Where the crops of the contrasts are cut."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fsr.config import TrainConfig


class Crops(NamedTuple):
    """N crops of each kind of each image, image by image and kind by kind."""

    images: Tensor  # [B * kinds * N, 3, s, s]
    tags: Tensor  # [B, kinds, N] the label of the patch in the middle of each
    fits: Tensor  # [B, kinds, N] (bool): false stands in where the image has too few patches of this kind


def cut_crops(view: Tensor, label: Tensor, wanted: Sequence[Tensor], noise: Tensor, config: TrainConfig) -> Crops:
    """Crops of normalised views [B, 3, S, S] with a label map [B, n, n] of their patches.

    A crop has a patch in its middle, and is moved inwards where it would leave the view. The middle patches of a kind
    are those with the largest draw [B, n * n] among its `wanted` ones [B, n, n] (bool). Where these are too few, any
    other patch stands in, so that the number of crops is always the same.
    """
    side, patch, grid = config.contrast_side, config.patch_size, label.shape[-1]
    kinds = torch.stack(list(wanted), dim=1).flatten(2)  # [B, kinds, n * n]
    middles = (noise[:, None] + kinds).topk(config.contrast_crops, dim=2).indices  # [B, kinds, N]
    fits, tags = kinds.gather(2, middles), label.flatten(1)[:, None].expand_as(kinds).gather(2, middles)
    pixels = torch.arange(side * patch, device=view.device)
    places = (middles.flatten(1) // grid, middles.flatten(1) % grid)
    rows, columns = (((at - side // 2).clamp(0, grid - side) * patch)[:, :, None] + pixels for at in places)
    images = torch.arange(len(view), device=view.device)[:, None, None, None]
    crops = view.permute(0, 2, 3, 1)[images, rows[:, :, :, None], columns[:, :, None]]  # [B, kinds * N, s, s, 3]
    return Crops(crops.flatten(0, 1).permute(0, 3, 1, 2), tags, fits)
