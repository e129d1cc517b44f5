"""Class activation maps, and labels from them."""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from fsr.data.images import IGNORED
from fsr.models.encoder import Features
from fsr.models.network import Network
from fsr.resize import resize


@torch.no_grad()
def multi_scale_cams(
    network: Network,
    images: Tensor,
    scales: tuple[float, ...],
    *,
    seen: tuple[Tensor, Tensor] | None = None,
    classes: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Top and aux multi-scale CAM of images [B, 3, H, W], each [B, K, H, W] in [0, 1] (METHOD "Multi-scale CAM").

    The CAM at a scale is the maximum over the image and its horizontal flip. CAMs are summed over the scales, then
    normalised per image and class.

    Args:
        network: in training mode with drop path, or in evaluation mode without.
        images: network input [B, 3, H, W].
        scales: of the image.
        seen: top and aux features of the images at scale 1, if the caller has them already.
        classes: selects classes of each image, [B, W], counted from 0 without the background. The CAMs are then
            [B, W, H, W].
    """
    cams = (_cams_at(scale, network, images, seen, classes) for scale in scales)
    top, aux = functools.reduce(lambda sums, new: (sums[0] + new[0], sums[1] + new[1]), cams)
    return normalise_cam(top), normalise_cam(aux)


def _cams_at(
    scale: float, network: Network, images: Tensor, seen: tuple[Tensor, Tensor] | None, classes: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Top and aux CAM of one scale, see `multi_scale_cams`."""
    scaled = resized(images, scale)
    flipped = scaled.flip(-1)
    if scale == 1 and seen is not None:
        new: Features = network.encoder(flipped)
        top = torch.cat([network.top_cam(seen[0]), network.top_cam(new.top)])
        aux = torch.cat([network.aux_cam(seen[1]), network.aux_cam(new.aux)])
    else:
        new = network.encoder(torch.cat([scaled, flipped]))
        top, aux = network.top_cam(new.top), network.aux_cam(new.aux)
    return _with_flip(top, images, classes), _with_flip(aux, images, classes)


@torch.no_grad()
def multi_scale_aux_cam(
    network: Network, images: Tensor, scales: tuple[float, ...], *, classes: Tensor | None = None
) -> Tensor:
    """The aux CAM of `multi_scale_cams` alone, for which the encoder stops at the aux features."""

    def at(scale: float) -> Tensor:
        scaled = resized(images, scale)
        aux = network.encoder.aux_features(torch.cat([scaled, scaled.flip(-1)]))
        return _with_flip(network.aux_cam(aux), images, classes)

    return normalise_cam(functools.reduce(torch.add, map(at, scales)))


def own_classes(labels: Tensor, most: int | None = None) -> tuple[Tensor, Tensor]:
    """The classes of each image, counted from 0, and 1 for each, 0 where an image has fewer: two [B, W], W ≥ 1.

    Labels are [B, K]. W is `most`, the classes of an image at most, if the host has counted them.
    """
    most = int(labels.sum(1).max()) if most is None else most
    present, classes = labels.sort(dim=1, descending=True, stable=True)
    return classes[:, : max(most, 1)], present[:, : max(most, 1)]


def resized(images: Tensor, scale: float) -> Tensor:
    """Images [B, 3, H, W] at a scale; their sides are truncated to whole pixels, of which at least one is left."""
    if scale == 1:
        return images
    height, width = images.shape[-2:]
    size = (max(1, int(scale * height)), max(1, int(scale * width)))
    return resize(images, size)


def _with_flip(cam: Tensor, images: Tensor, classes: Tensor | None) -> Tensor:
    """The maximum over images and their flips of a CAM [2B, K, h, w], at the images' size: [B, K or W, H, W]."""
    if classes is not None:
        cam = cam.gather(1, classes.repeat(2, 1)[:, :, None, None].expand(-1, -1, *cam.shape[2:]))
    cam = resize(cam.float(), (images.shape[-2], images.shape[-1]))
    upright, flipped = cam.chunk(2)
    return torch.maximum(upright, flipped.flip(-1))


def normalise_cam(cam: Tensor) -> Tensor:
    """CAM [B, K, H, W] to [0, 1]: minus its minimum, over (its maximum after that + 1e-5), per image and class."""
    cam = cam - cam.amin(dim=(2, 3), keepdim=True)
    return cam / (cam.amax(dim=(2, 3), keepdim=True) + 1e-5)


def strongest_class(cam: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Value and label (class + 1) of the strongest present class: CAM [B, K, H, W], labels [B, K] to two [B, H, W]."""
    value, best = (cam * labels[:, :, None, None]).max(dim=1)
    return value, best + 1


def named(label: Tensor, classes: Tensor) -> Tensor:
    """A label map [B, S, S] that counts an image's own classes [B, W] from 1, with the class ids in their place."""
    ids = F.pad(classes + 1, (1, 0))  # [B, 1 + W]
    known = label != IGNORED
    return ids.gather(1, (label * known).flatten(1)).view_as(label).where(known, label)


def training_label(cam: Tensor, labels: Tensor, low: float | Tensor, high: float | Tensor) -> Tensor:
    """Label map [B, H, W]: the strongest class above `high`, background up to `low`, ignored between."""
    value, label = strongest_class(cam, labels)
    label[value <= high] = IGNORED
    label[value <= low] = 0
    return label
