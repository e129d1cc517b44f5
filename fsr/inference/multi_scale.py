"""Multi-scale inference with horizontal flip: one prediction of an image from several sizes of it."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fsr.cam import normalise_cam
from fsr.models.network import Network


class MultiScale(NamedTuple):
    """Fused predictions for B images of one size; image i has P_i classes."""

    logits: Tensor  # [B, C, H, W] segmentation
    classes: list[Tensor]  # [P_i] class ids from 1, rising
    cams: list[Tensor]  # [P_i, H, W] top CAMs in [0, 1]
    aux_cams: list[Tensor]  # [P_i, H, W] in [0, 1]
    grids: list[Tensor]  # a scale: [B, C, h, w] segmentation logits on the patch grid, summed over image and flip


@torch.no_grad()
def multi_scale_inference(
    network: Network, images: Tensor, labels: Tensor | None, scales: tuple[float, ...]
) -> MultiScale:
    """Fuse the predictions for images [B, 3, H, W] over scales and horizontal flip (METHOD "Inference").

    Logits and CAMs are summed over the image and its flip. Over the scales the maximum of the logits and the sum of the
    CAMs is taken. CAMs are made for the classes in `labels` [B, K]; without labels, for those that the top classifier
    predicts (the likeliest if it predicts none).
    """
    size = images.shape[-2:]
    grids, top_grids, aux_grids = [], [], []
    for scale in scales:
        scaled = images
        if scale != 1:
            to = (int(scale * size[0]), int(scale * size[1]))
            scaled = F.interpolate(images, size=to, mode="bilinear", align_corners=False)
        seen = network.encoder(torch.cat([scaled, scaled.flip(-1)]))
        top, aux = network.cams(seen)
        grids.append(_with_flip(network.decoder(seen.top)))
        top_grids.append(_with_flip(top))
        aux_grids.append(_with_flip(aux))
        if labels is None:
            labels = _predicted(network.classify(seen)[0][: len(images)])
    classes = [present.nonzero()[:, 0] for present in labels]
    return MultiScale(
        fuse_logits(grids, size),
        [present + 1 for present in classes],
        [_fuse_cams(top_grids, i, present, size) for i, present in enumerate(classes)],
        [_fuse_cams(aux_grids, i, present, size) for i, present in enumerate(classes)],
        grids,
    )


def fuse_logits(grids: list[Tensor], size: tuple[int, int]) -> Tensor:
    """Segmentation logits [B, C, H, W] from those of each scale [B, C, h, w]: their maximum at the image's size."""
    fused = None
    for grid in grids:
        logits = F.interpolate(grid.float(), size=size, mode="bilinear", align_corners=False)
        fused = logits if fused is None else torch.maximum(fused, logits, out=fused)
    return fused


def _with_flip(maps: Tensor) -> Tensor:
    """Maps of the images plus those of their flips, flipped back: [2B, C, h, w] to [B, C, h, w].

    Resizing commutes with the flip, so the sum may be taken on the small grid.
    """
    upright, flipped = maps.float().chunk(2)
    return upright + flipped.flip(-1)


def _predicted(logits: Tensor) -> Tensor:
    """Labels [B, K] from class logits [B, K]."""
    likeliest = F.one_hot(logits.argmax(dim=1), logits.shape[1]).bool()
    return (logits > 0) | likeliest


def _fuse_cams(grids: list[Tensor], image: int, classes: Tensor, size: tuple[int, int]) -> Tensor:
    """The CAMs [P, H, W] of one image's classes, numbered from 0: only these have to be resized."""
    if len(classes) == 0:
        return grids[0].new_empty(0, *size)
    chosen = (grid[image : image + 1, classes] for grid in grids)
    return normalise_cam(sum(F.interpolate(cam, size=size, mode="bilinear", align_corners=False) for cam in chosen))[0]
