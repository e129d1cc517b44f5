"""Pixel-adaptive smoothing of masks along an image (PAR; Ru et al., CVPR 2022 and ToCo)."""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from fsr.ops.bilateral import check_pair
from fsr.ops.native import warn_of_reference


def pixel_adaptive(
    image: Tensor, masks: Tensor, dilations: tuple[int, ...], iterations: int, *, steepness: float, position: Tensor
) -> Tensor:
    """Masks after some iterations in which each pixel takes the weighted sum over its neighbours.

    The neighbours lie in 8 directions at every dilation; the border is replicated. A neighbour's weight is the softmax
    over the neighbours of minus its squared distance in colour, in units of `steepness` times the neighbours' standard
    deviation, averaged over the channels, plus its `position`. Computed in float32, without gradient.

    Args:
        image: [B, 3, H, W] in [0, 1].
        masks: floating point [B, C, H, W].
        dilations: in pixels, at most 8 of them.
        iterations: 0 or more.
        steepness: above 0.
        position: [8 · dilations], in the order of `neighbour_offsets`.

    Returns:
        float32 [B, C, H, W].

    Raises:
        ValueError: for shapes, types or devices that do not fit.
    """
    check_pair("image", image, "masks", masks)
    smoothed: Tensor = _pixel_adaptive(
        image.detach().float(), masks.detach().float(), list(dilations), iterations, steepness, position
    )
    return smoothed


# The body is the CPU's, and the reference for CUDA.
@torch.library.custom_op("fsr::pixel_adaptive", mutates_args=())
def _pixel_adaptive(
    image: Tensor, masks: Tensor, dilations: list[int], iterations: int, steepness: float, position: Tensor
) -> Tensor:
    if image.device.type != "cpu":
        warn_of_reference(image.device.type)
    batch, _, h, w = image.shape
    table = neighbour_table(h, w, tuple(dilations), image.device)
    affinity = (colour_affinity(image, table, steepness) + position).flatten(0, 1)
    first_pixels = h * w * torch.arange(batch, device=image.device)
    table = (first_pixels[:, None, None] + table).flatten(0, 1)  # [B * hw, N]
    pixels = masks.flatten(2).transpose(1, 2).flatten(0, 1)  # [B * hw, C]
    for _ in range(iterations):
        pixels = F.embedding_bag(table, pixels, mode="sum", per_sample_weights=affinity)
    return torch.unflatten(pixels, 0, (batch, h, w)).permute(0, 3, 1, 2).contiguous()


@_pixel_adaptive.register_fake
def _(
    image: Tensor, masks: Tensor, dilations: list[int], iterations: int, steepness: float, position: Tensor
) -> Tensor:
    return torch.empty_like(masks, memory_format=torch.contiguous_format)


def neighbour_offsets(dilations: tuple[int, ...]) -> list[tuple[int, int]]:
    """(row, column) offsets of the neighbours."""
    around = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
    return [(y * dilation, x * dilation) for dilation in dilations for y, x in around]


@lru_cache(maxsize=1)  # training refines one size
def neighbour_table(h: int, w: int, dilations: tuple[int, ...], device: torch.device) -> Tensor:
    """Pixel numbers of each pixel's neighbours in an h × w image, int64 [h * w, N]; the border is replicated."""
    offsets = torch.tensor(neighbour_offsets(dilations), device=device)
    rows = torch.arange(h, device=device).view(h, 1, 1) + offsets[:, 0]
    columns = torch.arange(w, device=device).view(1, w, 1) + offsets[:, 1]
    return (rows.clamp(0, h - 1) * w + columns.clamp(0, w - 1)).flatten(0, 1)


def colour_affinity(image: Tensor, table: Tensor, steepness: float) -> Tensor:
    """How alike each pixel of [B, 3, h, w] is to each of its neighbours [h * w, N]: [B, h * w, N], of sum 1."""
    pixels = image.flatten(2)  # [B, 3, hw]
    around = pixels[:, :, table]  # [B, 3, hw, N]
    # The unbiased standard deviation; on CPUs torch.std is over ten times slower than this.
    deviation = around - around.mean(dim=3, keepdim=True)
    spread = torch.linalg.vector_norm(deviation, dim=3, keepdim=True) / (len(table[0]) - 1) ** 0.5
    colour = -(((around - pixels[..., None]) / (spread + 1e-8) / steepness) ** 2).mean(dim=1)
    affinity: Tensor = colour.softmax(dim=-1)
    return affinity
