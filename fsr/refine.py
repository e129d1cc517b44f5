"""Pixel-adaptive refinement (PAR) of CAMs, and the pseudo labels that train the decoder."""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from fsr.data.images import IGNORED

DILATIONS = (1, 2, 4, 8, 12, 24)
ITERATIONS = 10
STEEPNESS = 0.3
POSITION_WEIGHT = 0.01


def neighbour_offsets() -> list[tuple[int, int]]:
    """(row, column) offsets of the 48 neighbours: 8 directions at every dilation."""
    around = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
    return [(y * dilation, x * dilation) for dilation in DILATIONS for y, x in around]


@lru_cache(maxsize=1)  # training refines one size
def neighbour_table(h: int, w: int, device: torch.device) -> Tensor:
    """Pixel numbers of each pixel's neighbours in an h × w image, int64 [h * w, 48]; the border is replicated."""
    offsets = torch.tensor(neighbour_offsets(), device=device)
    rows = torch.arange(h, device=device).view(h, 1, 1) + offsets[:, 0]
    columns = torch.arange(w, device=device).view(1, w, 1) + offsets[:, 1]
    return (rows.clamp(0, h - 1) * w + columns.clamp(0, w - 1)).flatten(0, 1)


def pixel_affinity(image: Tensor, table: Tensor) -> Tensor:
    """How much each pixel of [B, 3, h, w] in [0, 1] listens to each of its neighbours [h * w, 48]: [B, h * w, 48]."""
    pixels = image.flatten(2)  # [B, 3, hw]
    around = pixels[:, :, table]  # [B, 3, hw, 48]
    # The unbiased standard deviation; on CPUs torch.std is over ten times slower than this.
    deviation = around - around.mean(dim=3, keepdim=True)
    spread = torch.linalg.vector_norm(deviation, dim=3, keepdim=True) / (len(table[0]) - 1) ** 0.5
    colour = -(((around - pixels[..., None]) / (spread + 1e-8) / STEEPNESS) ** 2).mean(dim=1)
    affinity: Tensor = colour.softmax(dim=-1) + POSITION_WEIGHT * position_affinity(image.device)
    return affinity


@lru_cache(maxsize=1)
def position_affinity(device: torch.device) -> Tensor:
    """How much a pixel listens to each of its neighbours for being near, [48]."""
    distance = torch.tensor([(y * y + x * x) ** 0.5 for y, x in neighbour_offsets()], device=device)
    position = -((distance / (distance.std() + 1e-8) / STEEPNESS) ** 2)
    return position.softmax(dim=0)


def refine(image: Tensor, masks: Tensor) -> Tensor:
    """PAR: masks [B, C, h', w'] smoothed along the image [B, 3, h, w] in [0, 1], to [B, C, h, w]."""
    batch, _, h, w = image.shape
    masks = F.interpolate(masks, size=(h, w), mode="bilinear", align_corners=True)
    table = neighbour_table(h, w, image.device)
    affinity = pixel_affinity(image, table).flatten(0, 1)
    first_pixels = h * w * torch.arange(batch, device=image.device)
    table = (first_pixels[:, None, None] + table).flatten(0, 1)  # [B * hw, 48]
    pixels = masks.flatten(2).transpose(1, 2).flatten(0, 1)  # [B * hw, C]
    for _ in range(ITERATIONS):
        pixels = F.embedding_bag(table, pixels, mode="sum", per_sample_weights=affinity)
    return torch.unflatten(pixels, 0, (batch, h, w)).permute(0, 3, 1, 2).contiguous()


@torch.no_grad()
def refined_pseudo_label(image: Tensor, cam: Tensor, labels: Tensor, high: float, low: float) -> Tensor:
    """Pseudo label [B, S, S] of an image [B, 3, S, S] in [0, 1] with CAM [B, K, S, S] and labels [B, K].

    The CAM competes with a constant background, once `high` and once `low`, refined at half resolution: foreground
    where it beats the high one, background where it loses to the low one, else ignored.
    """
    size = image.shape[-2:]
    half = (size[0] // 2, size[1] // 2)
    image = F.interpolate(image, size=half, mode="bilinear", align_corners=False)
    cam = F.interpolate(cam * labels[:, :, None, None], size=half, mode="bilinear", align_corners=False)
    cam = cam.masked_fill(labels[:, :, None, None] == 0, -torch.inf)  # only the present classes compete

    def against(background: float) -> Tensor:
        return torch.cat([torch.full_like(image[:, :1], background), cam], dim=1).softmax(dim=1)

    both = refine(image, torch.cat([against(high), against(low)], dim=1))
    both = F.interpolate(both, size=size, mode="bilinear", align_corners=False)
    # On CPUs argmax over a leading dimension is over ten times slower than max.
    sure, likely = (masks.max(dim=1).indices for masks in both.chunk(2, dim=1))
    label = sure.masked_fill(sure == 0, IGNORED)
    return label.masked_fill((sure == 0) & (likely == 0), 0)
