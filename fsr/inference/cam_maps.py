"""The CAMs of an image as small maps in one file, from which reports are made without a network."""

from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, PngImagePlugin
from torch import Tensor

from fsr.data.images import open_picture, refusing
from fsr.files import atomic_file
from fsr.regular_file import read_regular

SIDE = 64  # pixels of a map's longer side: the patch grids of the usual scales have fewer patches
KINDS = ("cam", "aux_cam")


class CamMaps(NamedTuple):
    """Top and aux CAMs of one image's classes."""

    classes: tuple[int, ...]
    """P class ids from 1."""
    maps: np.ndarray
    """uint8 [2, P, h, w]: by kind as in KINDS; 255 is the strongest."""


def small_cams(cams: Tensor, aux_cams: Tensor) -> Tensor:
    """The CAMs [P, H, W] in [0, 1] of an image as small maps, uint8 [2, P, h, w]."""
    both = torch.stack([cams, aux_cams])
    height, width = both.shape[-2:]
    scale = min(1, SIDE / max(height, width))
    size = (max(1, round(scale * height)), max(1, round(scale * width)))
    if both.shape[1] == 0:
        return both.new_empty(2, 0, *size, dtype=torch.uint8)
    return (F.adaptive_avg_pool2d(both, size).clamp(0, 1) * 255).round().byte()


def write_cam_maps(file: Path, found: CamMaps) -> None:
    """Write the maps as one grey PNG: kind after kind, class after class from top to bottom; its text `classes` names
    these. An image without classes has one black pixel."""
    info = PngImagePlugin.PngInfo()
    info.add_text("classes", " ".join(map(str, found.classes)))
    maps = found.maps.reshape(-1, found.maps.shape[-1]) if found.classes else np.zeros((1, 1), np.uint8)
    with atomic_file(file) as stream:
        Image.fromarray(maps).save(stream, "PNG", pnginfo=info)


def read_cam_maps(file: Path) -> CamMaps:
    """The inverse of `write_cam_maps`. Raises UserError if the file is missing, damaged or another picture."""
    with refusing(file, "image"):
        picture = open_picture(BytesIO(read_regular(file)), "mask")
        pixels = np.array(picture)
        text = str(getattr(picture, "text", {}).get("classes", "none"))
        classes = tuple(int(word) for word in text.split())
        parts = len(KINDS) * len(classes)
        if pixels.dtype != np.uint8 or pixels.ndim != 2 or (parts and len(pixels) % parts):
            raise ValueError("it holds no maps of CAMs")
    if not classes:
        return CamMaps((), np.zeros((len(KINDS), 0, 1, 1), np.uint8))
    return CamMaps(classes, pixels.reshape(len(KINDS), len(classes), -1, pixels.shape[1]))
