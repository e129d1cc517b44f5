"""Resizing of maps, on a GPU as on a CPU, with a gradient or without: the same bits every time."""

from functools import lru_cache
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

Size: TypeAlias = tuple[int, int]


def resize(maps: Tensor, size: Size, *, align_corners: bool = False) -> Tensor:
    """Maps [B, C, h, w] at another size [B, C, H, W], bilinearly, as `F.interpolate` does it.

    The gradient is a product with two small matrices. Torch's own adds atomically on a GPU, in another order each time,
    and what it does instead in deterministic mode takes ten times the memory and, backwards, a sort for each corner.
    """
    resized: Tensor = _Bilinear.apply(maps, size, align_corners)
    return resized


def resize_bicubic(maps: Tensor, size: Size) -> Tensor:
    """Maps [B, C, h, w] at another size [B, C, H, W], bicubically, in float32.

    Products in both directions: torch's kernel takes a GPU 3 ms for a position embedding, because it has no more
    threads than pixels.
    """
    with torch.autocast(maps.device.type, enabled=False):
        rows, columns = (
            _matrix(*sides, "bicubic", False, maps.device) for sides in zip(maps.shape[2:], size, strict=True)
        )
        return rows @ maps.float() @ columns.T


class _Bilinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, size: Size, align_corners: bool) -> Tensor:
        ctx.before, ctx.size, ctx.align_corners = maps.shape[2:], size, align_corners
        # Not F.interpolate: in deterministic mode it takes the slow way, which only its own gradient needs.
        resized: Tensor = torch.ops.aten.upsample_bilinear2d(maps, size, align_corners)
        return resized

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        sides = zip(ctx.before, ctx.size, strict=True)
        rows, columns = (_matrix(*side, "bilinear", ctx.align_corners, gradient.device) for side in sides)
        return rows.T.to(gradient.dtype) @ (gradient @ columns.to(gradient.dtype)), None, None


@lru_cache
def _matrix(before: int, after: int, mode: str, align_corners: bool, device: torch.device) -> Tensor:
    """What resizing does to a column of pixels, [after, before]."""
    columns = torch.eye(before)[None, None]
    resized = F.interpolate(columns, size=(after, before), mode=mode, align_corners=align_corners)
    return resized[0, 0].to(device)
