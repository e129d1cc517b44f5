"""Pixel-adaptive refinement (PAR) of CAMs, and the pseudo labels that train the decoder."""

from functools import lru_cache

import torch
from torch import Tensor

from fsr.data.images import IGNORED
from fsr.ops import pixel_adaptive
from fsr.ops.pixel_adaptive import neighbour_offsets
from fsr.resize import resize

DILATIONS = (1, 2, 4, 8, 12, 24)
ITERATIONS = 10
STEEPNESS = 0.3
POSITION_WEIGHT = 0.01


@lru_cache(maxsize=1)
def position_weights(device: torch.device) -> Tensor:
    """How much a pixel listens to each of its neighbours for being near, [48]."""
    distance = torch.tensor([(y * y + x * x) ** 0.5 for y, x in neighbour_offsets(DILATIONS)], device=device)
    position = -((distance / (distance.std() + 1e-8) / STEEPNESS) ** 2)
    return POSITION_WEIGHT * position.softmax(dim=0)


def refine(image: Tensor, masks: Tensor) -> Tensor:
    """PAR: masks [B, C, h', w'] smoothed along the image [B, 3, h, w] in [0, 1], to [B, C, h, w]."""
    masks = resize(masks, (image.shape[-2], image.shape[-1]), align_corners=True)
    position = position_weights(image.device)
    return pixel_adaptive(image, masks, DILATIONS, ITERATIONS, steepness=STEEPNESS, position=position)


@torch.no_grad()
def refined_pseudo_label(
    image: Tensor, cam: Tensor, labels: Tensor, high: float | Tensor, low: float | Tensor
) -> Tensor:
    """Pseudo label [B, S, S] of an image [B, 3, S, S] in [0, 1] with CAM [B, K, S, S] and labels [B, K].

    The CAM competes with a constant background, once `high` and once `low`, refined at half resolution: foreground
    where it beats the high one, background where it loses to the low one, else ignored.
    """
    size = image.shape[-2:]
    half = (size[0] // 2, size[1] // 2)
    image = resize(image, half)
    cam = resize(cam * labels[:, :, None, None], half)
    cam = cam.masked_fill(labels[:, :, None, None] == 0, -torch.inf)  # only the present classes compete

    def against(background: float | Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(image[:, :1]) + background, cam], dim=1).softmax(dim=1)

    both = refine(image, torch.cat([against(high), against(low)], dim=1))
    both = resize(both, (size[0], size[1]))
    # On CPUs argmax over a leading dimension is over ten times slower than max.
    sure, likely = (masks.max(dim=1).indices for masks in both.chunk(2, dim=1))
    label = sure.masked_fill(sure == 0, IGNORED)
    return label.masked_fill((sure == 0) & (likely == 0), 0)
