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

# Bytes of an image's pictures as they stand in a page. With its words and its share of the page, an image stays below
# 20 000, also where there are only two dozen.
BUDGET = 14_500
_BYTES_OF_A_PART = 40  # of its element
_PIXELS = 320 * 240
_TALLEST = 16_383  # rows of a WebP
# Area of the photograph, its quality, area of the label maps: the first that keep to the budget. The last ones are for
# noise, and for label maps that are crumbs.
_LADDER = (
    *((1.0, 70, 0.5), (1.0, 50, 0.5), (1.0, 35, 0.5), (0.7, 40, 0.35), (0.5, 40, 0.25)),
    *((0.25, 40, 0.1), (0.1, 30, 0.05), (0.03, 20, 0.01), (0.01, 20, 0.003)),
)
_CAM_QUALITY = 50


class Strip(NamedTuple):
    """A layer over an image."""

    kind: str
    """`labels`, in the colours of the classes, or `cam`, in levels of grey."""
    classes: tuple[int, ...]
    """The class of each part."""
    rows: int
    """Of a part; its outermost rows stand once more above and below it, so that no part shines into the next."""
    content: bytes
    """WebP; with a transparent ground if it holds labels."""


class Tiles(NamedTuple):
    """The pictures of one image."""

    size: tuple[int, int]
    """Width and height."""
    photograph: bytes
    """WebP."""
    strips: dict[str, Strip]

    @property
    def bytes_in_page(self) -> int:
        """In base64, with the elements of the parts."""
        content = len(self.photograph) + sum(len(strip.content) for strip in self.strips.values())
        return content * 4 // 3 + _BYTES_OF_A_PART * sum(len(strip.classes) for strip in self.strips.values())


def tiles(picture: Image.Image, layers: Mapping[str, "np.ndarray | CamMaps"]) -> Tiles:
    """Pictures of an image and of its layers by name: label maps, uint8 [H, W], `CamMaps` of one kind, [P, h, w]."""
    cams = {name: _cam_strip(layer) for name, layer in layers.items() if isinstance(layer, CamMaps)}
    maps = {name: layer for name, layer in layers.items() if not isinstance(layer, CamMaps)}
    sizes: dict[tuple[int, int], dict[str, Strip]] = {}
    for area, quality, labels_area in _LADDER:
        size, labels_size = _size(picture, area), _size(picture, labels_area)
        if labels_size not in sizes:
            sizes[labels_size] = {name: label_strip(labels, labels_size) for name, labels in maps.items()}
        photograph = _webp(picture.resize(size, Image.Resampling.BOX), quality=quality)
        made = Tiles(size, photograph, cams | sizes[labels_size])
        if made.bytes_in_page <= BUDGET:
            break
    return made


def _size(picture: Image.Image, area: float) -> tuple[int, int]:
    """Width and height of a smaller picture, which has at most this share of the usual area."""
    factor = min(1, (area * _PIXELS / (picture.width * picture.height)) ** 0.5)
    return max(1, round(factor * picture.width)), max(1, round(factor * picture.height))


def label_strip(labels: np.ndarray, size: tuple[int, int]) -> Strip:
    """A part for each class of a label map but the background, in its colour; all else is transparent."""
    classes = np.flatnonzero(Image.fromarray(labels).histogram()[1:]) + 1
    width, height = size[0], min(size[1], _TALLEST // max(1, len(classes)) - 2)
    small = np.asarray(Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST))
    classes = classes[np.isin(classes, small)]
    parts = np.zeros((max(1, len(classes)), *small.shape), np.uint8)
    for part, class_id in zip(parts, classes, strict=False):
        part[small == class_id] = class_id
    pixels = np.dstack([voc_palette()[_stacked(parts)], np.where(_stacked(parts), 255, 0).astype(np.uint8)])
    return Strip("labels", tuple(classes.tolist()), height, _webp(Image.fromarray(pixels), lossless=True))


def _cam_strip(found: CamMaps) -> Strip:
    maps = found.maps if found.classes else np.zeros((1, 1, 1), np.uint8)
    image = Image.fromarray(_stacked(maps)).convert("RGB")
    return Strip("cam", found.classes, maps.shape[1], _webp(image, quality=_CAM_QUALITY))


def _stacked(parts: np.ndarray) -> np.ndarray:
    """Parts [P, h, w] from top to bottom, each with its outermost rows once more: [P (h + 2), w]."""
    return np.pad(parts, ((0, 0), (1, 1), (0, 0)), mode="edge").reshape(-1, parts.shape[-1])


def _webp(image: Image.Image, **options: int) -> bytes:
    stream = BytesIO()
    image.save(stream, "WEBP", method=2, **options)
    return stream.getvalue()
