"""Pictures of a network's predictions: one row an image, one column a stage of the method."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fsr.cam import multi_scale_cams, strongest_class
from fsr.config import TrainConfig
from fsr.data.loaders import EvaluationImage
from fsr.data.palette import voc_palette
from fsr.data.transforms import denormalise
from fsr.masking import block_mask, uncertain_blocks
from fsr.models.network import Network
from fsr.step import pseudo_label_of

COLUMNS = ("image", "CAM", "aux CAM", "mask", "pseudo label", "prediction", "ground truth")


@torch.no_grad()
def draw(network: Network, sample: EvaluationImage, config: TrainConfig, device: torch.device) -> Tensor:
    """The columns for one image side by side, [3, S, 7 S] in [0, 1]; the image is resized to the crop's size S.

    The mask is the one that training would put on this view: blocks with an uncertain aux CAM first.
    """
    training = network.training
    network.eval()
    _, image, ground_truth, labels = sample
    size = (config.crop_size, config.crop_size)
    view = F.interpolate(image[None].to(device), size=size, mode="bilinear", align_corners=False)
    ground_truth = F.interpolate(ground_truth[None, None].float(), size=size, mode="nearest")[0, 0].long()
    labels = labels[None].to(device)
    cam, aux_cam = multi_scale_cams(network, view, config.cam_scales)
    noise = torch.rand(1, (config.crop_size // config.block_size) ** 2, generator=torch.Generator().manual_seed(0))
    mask = block_mask(noise.to(device), uncertain_blocks(aux_cam, labels, config), config)
    mask = F.interpolate(mask[None].float(), size=size, mode="nearest")[0]
    logits = network.decoder(network.encoder(view).top)
    logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
    picture = denormalise(view)[0] / 255
    columns = (
        picture,
        heat(picture, strongest_class(cam, labels)[0][0]),
        heat(picture, strongest_class(aux_cam, labels)[0][0]),
        picture * (1 - 0.8 * mask),
        colours(pseudo_label_of(view, cam, labels, config)[0]),
        colours(logits.argmax(1)[0]),
        colours(ground_truth),
    )
    network.train(training)
    return torch.cat([column.cpu() for column in columns], dim=2)


def colours(label: Tensor) -> Tensor:
    """Label map [H, W] in VOC's colours, [3, H, W] in [0, 1]."""
    palette = torch.from_numpy(voc_palette())
    return palette[label.cpu().long()].permute(2, 0, 1) / 255


def heat(picture: Tensor, cam: Tensor) -> Tensor:
    """Picture [3, H, W] under its CAM [H, W] in [0, 1]: from blue (0) over green and yellow to red (1)."""
    level = cam * 4
    red, green, blue = ((1.5 - (level - centre).abs()).clamp(0, 1) for centre in (3, 2, 1))
    return 0.5 * picture + 0.5 * torch.stack([red, green, blue])


def overlay(picture: Tensor, label: Tensor) -> Tensor:
    """Picture [3, H, W] under the colours of its label map [H, W]; the background stays as it is."""
    shown = (label > 0).float()
    return picture * (1 - 0.6 * shown) + 0.6 * shown * colours(label)


PREVIEW_WIDTH = 200


def strip(picture: Tensor, ground_truth: Tensor | None, cam: Tensor, labels: list[Tensor]) -> Tensor:
    """Small tiles side by side, [3, h, n w]: the image [3, H, W], ground truth, CAM and label maps, each [H, W].

    Without ground truth its tile stays black.
    """
    height, width = picture.shape[-2:]
    size = (max(1, round(PREVIEW_WIDTH / width * height)), PREVIEW_WIDTH)

    def small(maps: Tensor) -> Tensor:
        return F.interpolate(maps[None], size=size, mode="bilinear", align_corners=False, antialias=True)[0]

    def small_label(label: Tensor) -> Tensor:
        return F.interpolate(label[None, None].float(), size=size, mode="nearest")[0, 0].long()

    picture, cam = small(picture).clamp(0, 1), small(cam[None])[0].clamp(0, 1)
    maps = [
        torch.zeros_like(cam, dtype=torch.int64) if ground_truth is None else small_label(ground_truth),
        *map(small_label, labels),
    ]
    first, *others = map(colours, maps)
    return torch.cat([picture, first, heat(picture, cam), *others], dim=2)


def pixels_of(picture: Tensor) -> np.ndarray:
    """Picture [3, H, W] in [0, 1] as 8-bit pixels [H, W, 3]."""
    return (picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
