"""Which blocks of the student's second view are masked."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fsr.cam import strongest_class
from fsr.config import TrainConfig


def block_noise(batch: int, config: TrainConfig) -> Tensor:
    """One uniform draw per block, [B, blocks], on the CPU: the same for every device."""
    return torch.rand(batch, (config.crop_size // config.block_size) ** 2)


def block_mask(noise: Tensor, uncertain: Tensor | None, config: TrainConfig) -> Tensor:
    """Mask [B, n, n] (bool) on the patch grid from the draw [B, blocks]: exactly ceil(mask_ratio * blocks) blocks.

    Those with the largest noise are masked; `uncertain` [B, blocks] (bool) blocks go before all others.
    """
    if uncertain is not None:
        noise = noise + uncertain
    chosen = noise.topk(config.masked_blocks, dim=1).indices
    masked = torch.zeros_like(noise, dtype=torch.bool).scatter_(1, chosen, True)
    side = config.crop_size // config.block_size
    patches = config.block_size // config.patch_size
    grid = torch.unflatten(masked, 1, (side, side))
    return grid.repeat_interleave(patches, dim=1).repeat_interleave(patches, dim=2)


def uncertain_blocks(cam: Tensor, labels: Tensor, config: TrainConfig) -> Tensor:
    """Blocks whose CAM [B, K, S, S] of the present classes is neither clearly on nor off, [B, blocks] (bool)."""
    low, high = config.uncertain
    side = config.crop_size // config.block_size
    value, _ = strongest_class(cam, labels)
    if config.block_uncertainty == "pixel":
        value = F.interpolate(value[:, None], size=(side, side), mode="nearest")
        return ((value > low) & (value < high)).flatten(1)
    pixels = ((value > low) & (value < high)).float()
    return F.avg_pool2d(pixels[:, None], config.block_size).flatten(1) >= 0.5
