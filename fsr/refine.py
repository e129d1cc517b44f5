"""Pixel-adaptive refinement (PAR) of CAMs, and the pseudo labels that train the decoder."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fsr.cam import IGNORED

DILATIONS = (1, 2, 4, 8, 12, 24)
ITERATIONS = 10
STEEPNESS = 0.3
POSITION_WEIGHT = 0.01


def neighbour_offsets() -> list[tuple[int, int]]:
    """(row, column) offsets of the 48 neighbours: 8 directions at every dilation."""
    around = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
    return [(y * dilation, x * dilation) for dilation in DILATIONS for y, x in around]


def neighbours(maps: Tensor) -> list[Tensor]:
    """The maps [B, C, h, w] shifted to each neighbour, 48 views [B, C, h, w]; the border is replicated."""
    reach = max(DILATIONS)
    h, w = maps.shape[-2:]
    padded = F.pad(maps, (reach,) * 4, mode="replicate")
    return [padded[:, :, reach + y : reach + y + h, reach + x : reach + x + w] for y, x in neighbour_offsets()]


def pixel_affinity(image: Tensor) -> Tensor:
    """How much each pixel listens to each neighbour: image [B, 3, h, w] in [0, 1] to [B, 48, h, w]."""
    around = torch.stack(neighbours(image), dim=2)  # [B, 3, 48, h, w]
    spread = around.std(dim=2, keepdim=True)
    colour = -(((around - image[:, :, None]) / (spread + 1e-8) / STEEPNESS) ** 2).mean(dim=1)
    distance = image.new_tensor([(y * y + x * x) ** 0.5 for y, x in neighbour_offsets()])
    position = -((distance / (distance.std() + 1e-8) / STEEPNESS) ** 2)
    return colour.softmax(dim=1) + POSITION_WEIGHT * position.softmax(dim=0)[None, :, None, None]


def refine(image: Tensor, masks: Tensor) -> Tensor:
    """PAR: masks [B, C, h', w'] smoothed along the image [B, 3, h, w] in [0, 1], to [B, C, h, w]."""
    masks = F.interpolate(masks, size=image.shape[-2:], mode="bilinear", align_corners=True)
    affinity = pixel_affinity(image)
    for _ in range(ITERATIONS):
        refined = torch.zeros_like(masks)
        for k, shifted in enumerate(neighbours(masks)):
            refined.addcmul_(affinity[:, k : k + 1], shifted)
        masks = refined
    return masks


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

    # Only the present classes compete. They come first, padded to the largest count in the batch.
    width = int(labels.sum(1).max())
    present, classes = labels.sort(dim=1, descending=True, stable=True)
    present, classes = present[:, :width], classes[:, :width]
    cam = cam.gather(1, classes[:, :, None, None].expand(-1, -1, *half))
    cam = cam.masked_fill(present[:, :, None, None] == 0, -torch.inf)

    def against(background: float) -> Tensor:
        return torch.cat([torch.full_like(image[:, :1], background), cam], dim=1).softmax(dim=1)

    both = refine(image, torch.cat([against(high), against(low)], dim=1))
    both = F.interpolate(both, size=size, mode="bilinear", align_corners=False)
    ids = F.pad(classes + 1, (1, 0))  # [B, 1 + width]: channel to label

    def answer(masks: Tensor) -> Tensor:
        best = masks.argmax(dim=1)
        return ids.gather(1, best.flatten(1)).view_as(best)

    sure, likely = (answer(masks) for masks in both.chunk(2, dim=1))
    label = sure.masked_fill(sure == 0, IGNORED)
    return label.masked_fill((sure == 0) & (likely == 0), 0)
