"""The pictures of a report's gallery: an image, its label maps and its CAMs, within a budget of bytes.

A layer that lies over the image is a strip: a part for each class, from top to bottom, so that a browser can show and
hide classes by itself, also where it runs no JavaScript.
"""

from collections.abc import Mapping
from io import BytesIO
from typing import NamedTuple

import numpy as np
from PIL import Image

from fsr.data.palette import voc_palette
from fsr.inference.cam_maps import CamMaps

# Bytes of an image's pictures. In a page they are a third longer; with its words and its share of
# the page, an image stays below 20 000 bytes also where there are only two dozen.
BUDGET = 11_000
_PIXELS = 320 * 240
# Scale of the pictures' area, and quality of the photograph: the first that keep to the budget. Photographs take 70 or
# 50; the others are for noise, and for label maps that are crumbs.
_LADDER = ((1.0, 70), (1.0, 50), (1.0, 30), (0.5, 40), (0.25, 40), (0.1, 30), (0.03, 20))


class Strip(NamedTuple):
    """A layer over an image."""

    kind: str
    """`labels`, in the colours of the classes, or `cam`, in levels of grey."""
    classes: tuple[int, ...]
    """The class of each part."""
    rows: int
    """Of a part; its outermost rows stand once more above and below it, so that no part shines into the next."""
    content: bytes
    """PNG with a transparent ground, or WebP."""


class Tiles(NamedTuple):
    """The pictures of one image."""

    size: tuple[int, int]
    """Width and height."""
    photograph: bytes
    """WebP."""
    strips: dict[str, Strip]


def tiles(picture: Image.Image, layers: Mapping[str, "np.ndarray | CamMaps"]) -> Tiles:
    """Pictures of an image and of its layers by name: label maps, uint8 [H, W], `CamMaps` of one kind, [P, h, w]."""
    for scale, quality in _LADDER:
        made = _tiles(picture, layers, scale * _PIXELS, quality)
        if len(made.photograph) + sum(len(strip.content) for strip in made.strips.values()) <= BUDGET:
            break
    return made


def _tiles(picture: Image.Image, layers: Mapping[str, "np.ndarray | CamMaps"], pixels: float, quality: int) -> Tiles:
    factor = min(1, (pixels / (picture.width * picture.height)) ** 0.5)
    size = (max(1, round(factor * picture.width)), max(1, round(factor * picture.height)))
    strips = {
        name: _cam_strip(layer, quality) if isinstance(layer, CamMaps) else label_strip(layer, size)
        for name, layer in layers.items()
    }
    return Tiles(size, _webp(picture.resize(size, Image.Resampling.LANCZOS), quality), strips)


def label_strip(labels: np.ndarray, size: tuple[int, int]) -> Strip:
    """A part for each class of a label map but the background, in its colour; all else is transparent."""
    small = np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))
    classes = np.flatnonzero(np.bincount(small.ravel(), minlength=256)[1:]) + 1
    # Places in a palette of these classes alone: few bits a pixel.
    parts = np.zeros((max(1, len(classes)), *small.shape), np.uint8)
    for place, class_id in enumerate(classes):
        parts[place][small == class_id] = place + 1
    image = Image.fromarray(_stacked(parts))
    image.putpalette(voc_palette()[[0, *classes]].tobytes())
    stream = BytesIO()
    image.save(stream, "PNG", transparency=0, optimize=True)
    return Strip("labels", tuple(classes.tolist()), size[1], stream.getvalue())


def _cam_strip(found: CamMaps, quality: int) -> Strip:
    maps = found.maps if found.classes else np.zeros((1, 1, 1), np.uint8)
    return Strip("cam", found.classes, maps.shape[1], _webp(Image.fromarray(_stacked(maps)).convert("RGB"), quality))


def _stacked(parts: np.ndarray) -> np.ndarray:
    """Parts [P, h, w] from top to bottom, each with its outermost rows once more: [P (h + 2), w]."""
    return np.pad(parts, ((0, 0), (1, 1), (0, 0)), mode="edge").reshape(-1, parts.shape[-1])


def _webp(image: Image.Image, quality: int) -> bytes:
    stream = BytesIO()
    image.save(stream, "WEBP", quality=quality, method=2)
    return stream.getvalue()
