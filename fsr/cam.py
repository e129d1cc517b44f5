"""Class activation maps, and labels from them."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fsr.data.images import IGNORED
from fsr.models.encoder import Features
from fsr.models.network import Network


@torch.no_grad()
def multi_scale_cams(
    network: Network,
    images: Tensor,
    scales: tuple[float, ...],
    *,
    with_top: bool = True,
    seen: Features | None = None,
    classes: Tensor | None = None,
) -> tuple[Tensor | None, Tensor]:
    """Top and aux multi-scale CAM of images [B, 3, H, W], each [B, K, H, W] in [0, 1] (METHOD "Multi-scale CAM").

    The CAM at a scale is the maximum over the image and its horizontal flip. CAMs are summed over the scales, then
    normalised per image and class.
    Without `with_top` the encoder stops two blocks early and the top CAM is None. `seen` are the features of the
    unscaled images, if the caller has them already. `classes` [B, W] selects classes of each image, counted from 0
    without the background: the CAMs are then [B, W, H, W].
    """
    size = images.shape[-2:]
    sums: list[Tensor | None] = [None, None]
    for scale in scales:
        scaled = images
        if scale != 1:
            to = (int(scale * size[0]), int(scale * size[1]))
            scaled = F.interpolate(images, size=to, mode="bilinear", align_corners=False)
        flipped = scaled.flip(-1)
        known = scale == 1 and seen is not None
        new = network.encoder(flipped if known else torch.cat([scaled, flipped]), with_top=with_top)
        cams = network.cams(new)
        if known:
            cams = [None if b is None else torch.cat([a, b]) for a, b in zip(network.cams(seen), cams, strict=True)]
        for i, cam in enumerate(cams):
            if cam is not None:
                if classes is not None:
                    cam = cam.gather(1, classes.repeat(2, 1)[:, :, None, None].expand(-1, -1, *cam.shape[2:]))
                cam = F.interpolate(cam.float(), size=size, mode="bilinear", align_corners=False)
                upright, flipped_cam = cam.chunk(2)
                cam = torch.maximum(upright, flipped_cam.flip(-1))
                sums[i] = cam if sums[i] is None else sums[i] + cam
    top, aux = sums
    return None if top is None else normalise_cam(top), normalise_cam(aux)


def normalise_cam(cam: Tensor) -> Tensor:
    """CAM [B, K, H, W] to [0, 1]: minus its minimum, over (its maximum after that + 1e-5), per image and class."""
    cam = cam - cam.amin(dim=(2, 3), keepdim=True)
    return cam / (cam.amax(dim=(2, 3), keepdim=True) + 1e-5)


def strongest_class(cam: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Value and label (class + 1) of the strongest present class: CAM [B, K, H, W], labels [B, K] to two [B, H, W]."""
    value, best = (cam * labels[:, :, None, None]).max(dim=1)
    return value, best + 1


def training_label(cam: Tensor, labels: Tensor, low: float, high: float) -> Tensor:
    """Label map [B, H, W]: the strongest class above `high`, background up to `low`, ignored between."""
    value, label = strongest_class(cam, labels)
    label[value <= high] = IGNORED
    label[value <= low] = 0
    return label
