"""Multi-scale inference with horizontal flip: one prediction of an image from several sizes of it."""

import functools
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fsr.cam import normalise_cam, resized
from fsr.inference.transfer import uploaded
from fsr.models.encoder import Features
from fsr.models.network import Network
from fsr.resize import resize


class MultiScale(NamedTuple):
    """Fused predictions for B images of one size; image i has P_i classes."""

    logits: Tensor  # [B, C, H, W] segmentation
    classes: list[Tensor]  # [P_i] class ids from 1, rising
    cams: list[Tensor]  # [P_i, H, W] top CAMs in [0, 1]
    aux_cams: list[Tensor]  # [P_i, H, W] in [0, 1]
    grids: list[Tensor]  # a scale: [B, C, h, w] segmentation logits on the patch grid, summed over image and flip
    # Of the image itself, at scale 1 and without its flip, as an evaluation sees it; None where no scale is 1.
    upright: Tensor | None = None  # [B, C, h, w] segmentation logits on the patch grid
    class_logits: Tensor | None = None  # [B, K] of the top classifier, without the background


@torch.no_grad()
def multi_scale_inference(
    network: Network, images: Tensor, labels: Tensor | None, scales: tuple[float, ...]
) -> MultiScale:
    """Fuse the predictions for images [B, 3, H, W] over scales and horizontal flip (METHOD "Inference").

    Logits and CAMs are summed over the image and its flip. Over the scales the maximum of the logits and the sum of the
    CAMs is taken. CAMs are made for the classes in `labels` [B, K]; without labels, for those that the top classifier
    predicts (the likeliest if it predicts none). With labels on the CPU the host does not wait for a GPU.
    """
    size = (images.shape[2], images.shape[3])
    grids, top_grids, aux_grids = [], [], []
    upright = class_logits = None
    for scale in scales:
        scaled = resized(images, scale)
        seen: Features = network.encoder(torch.cat([scaled, scaled.flip(-1)]))
        decoded = network.decoder(seen.top)
        grids.append(_with_flip(decoded))
        top_grids.append(_with_flip(network.top_cam(seen.top)))
        aux_grids.append(_with_flip(network.aux_cam(seen.aux)))
        if scale == 1:
            upright, class_logits = decoded[: len(images)].float(), network.classify(seen)[0][: len(images)].float()
        if labels is None:
            labels = _predicted(network.classify(seen)[0][: len(images)])
        del scaled, seen, decoded  # the next scale needs the memory
    assert labels is not None, "there is at least one scale"
    labels = labels.cpu()
    each = (labels != 0).sum(1).tolist()
    classes = list(torch.split(uploaded(labels.nonzero()[:, 1], images.device), each))
    return MultiScale(
        fuse_logits(grids, size),
        [present + 1 for present in classes],
        [_fuse_cams(top_grids, i, present, size) for i, present in enumerate(classes)],
        [_fuse_cams(aux_grids, i, present, size) for i, present in enumerate(classes)],
        grids,
        upright,
        class_logits,
    )


def fuse_logits(grids: list[Tensor], size: tuple[int, int]) -> Tensor:
    """Segmentation logits [B, C, H, W] from those of each scale [B, C, h, w]: their maximum at the image's size."""
    first, *others = grids
    fused = resize(first.float(), size)
    for grid in others:
        logits = resize(grid.float(), size)
        torch.maximum(fused, logits, out=fused)
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
    cams = (resize(cam, size) for cam in chosen)
    return normalise_cam(functools.reduce(torch.add, cams))[0]
