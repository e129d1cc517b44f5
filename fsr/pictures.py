"""Pictures of a network's predictions: one row an image, one column a stage of the method."""

import math
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from fsr.cam import multi_scale_cams, named, own_classes, strongest_class
from fsr.config import TrainConfig
from fsr.data.loaders import EvaluationImage
from fsr.data.palette import voc_palette
from fsr.data.transforms import denormalise
from fsr.masking import block_mask, uncertain_blocks
from fsr.models.network import Network
from fsr.picture_columns import COLUMNS
from fsr.resize import resize
from fsr.step import pseudo_label_of
from fsr.thresholds import thresholds_of

TITLE_HEIGHT, TITLE_WIDTH = 14, 72  # pixels that a column's name needs


@torch.no_grad()
def draw(
    network: Network,
    sample: EvaluationImage,
    config: TrainConfig,
    device: torch.device,
    step: int | None = None,
    thresholds: Tensor | None = None,
) -> Tensor:
    """The columns for one image side by side, [3, S, 7 S] in [0, 1]; the image is resized to the crop's size S.

    Mask and pseudo label are those that training would make of this view in step `step`, by default the last, with its
    low and high `thresholds` [2], by default as far as the configuration tells them: blocks with an uncertain CAM are
    masked first, unless masks are random to the end. Where training takes pseudo labels from the teacher, the network's
    own are drawn.
    """
    step = config.iterations - 1 if step is None else step
    low, high = thresholds_of(step, config) if thresholds is None else thresholds
    training = network.training
    network.eval()
    _, image, ground_truth, labels = sample
    size = (config.crop_size, config.crop_size)
    view = resize(image[None].to(device), size)
    ground_truth = F.interpolate(ground_truth[None, None].float(), size=size, mode="nearest")[0, 0].long()
    labels = labels[None].to(device)
    classes, present = own_classes(labels)
    cam, aux_cam = multi_scale_cams(network, view, config.cam_scales, classes=classes)
    noise = torch.rand(1, (config.crop_size // config.block_size) ** 2, generator=torch.Generator().manual_seed(0))
    source = cam if config.cam_source_at(step) == "top" else aux_cam
    at_random = config.masks_at_random(config.iterations - 1)
    uncertain = None if at_random else uncertain_blocks(source, present, config)
    mask = block_mask(noise.to(device), uncertain, config)
    mask = F.interpolate(mask[None].float(), size=size, mode="nearest")[0]
    logits = network.decoder(network.encoder(view).top)
    logits = resize(logits, size)
    picture = denormalise(view)[0] / 255
    columns = (
        picture,
        heat(picture, strongest_class(cam, present)[0][0]),
        heat(picture, strongest_class(aux_cam, present)[0][0]),
        picture * (1 - 0.8 * mask),
        colours(named(pseudo_label_of(view, cam, present, config, low, high), classes)[0]),
        colours(logits.argmax(1)[0]),
        colours(ground_truth),
    )
    network.train(training)
    return torch.cat([column.cpu() for column in columns], dim=2)


def with_titles(picture: Tensor) -> Tensor:
    """What `draw` drew, under a line that names its columns: [3, 14 + f S, 7 f S], where a small S is made f times as
    large, for the names to have room."""
    factor = math.ceil(TITLE_WIDTH * len(COLUMNS) / picture.shape[-1])
    picture = picture.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    width = picture.shape[-1] // len(COLUMNS)
    titles = []
    for column in COLUMNS:
        title = Image.new("RGB", (width, TITLE_HEIGHT), "white")
        ImageDraw.Draw(title).text((2, 1), column, fill="black")
        titles.append(torch.from_numpy(np.array(title)).permute(2, 0, 1) / 255)
    return torch.cat([torch.cat(titles, dim=2), picture], dim=1)


def colours(label: Tensor) -> Tensor:
    """Label map [..., H, W] in VOC's colours, [..., 3, H, W] in [0, 1]."""
    return _palette(label.device)[label.long()].movedim(-1, -3)


@lru_cache
def _palette(device: torch.device) -> Tensor:
    """Cached, because copying it to a GPU makes the host wait."""
    return (torch.from_numpy(voc_palette()) / 255).to(device)


def heat(picture: Tensor, cam: Tensor) -> Tensor:
    """Picture [..., 3, H, W] under its CAM [..., H, W] in [0, 1]: from blue (0) over green and yellow to red (1)."""
    level = cam * 4
    red, green, blue = ((1.5 - (level - centre).abs()).clamp(0, 1) for centre in (3, 2, 1))
    return 0.5 * picture + 0.5 * torch.stack([red, green, blue], dim=-3)


def overlay(picture: Tensor, label: Tensor) -> Tensor:
    """Picture [..., 3, H, W] under the colours of its label map [..., H, W]; the background stays as it is."""
    shown = (label > 0).float().unsqueeze(-3)
    return picture * (1 - 0.6 * shown) + 0.6 * shown * colours(label)


def pixels_of(picture: Tensor) -> Tensor:
    """Picture [..., 3, H, W] in [0, 1] as 8-bit pixels [..., H, W, 3]."""
    return (picture.clamp(0, 1) * 255).round().byte().movedim(-3, -1).contiguous()
