"""Masks as VOC stores them: PNG files of class ids with VOC's colour map."""

from io import BytesIO

import numpy as np
from PIL import Image


def voc_palette() -> np.ndarray:
    """The 256 colours of VOC's masks, uint8 [256, 3]; bits of the index are in turns high bits of red, green, blue."""
    index = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for level in range(8):
        for channel in range(3):
            bit = index >> (3 * level + channel) & 1
            colours[:, channel] |= (bit << (7 - level)).astype(np.uint8)
    return colours


def palette_png(classes: np.ndarray) -> bytes:
    """A PNG of class ids, uint8 [H, W], in VOC's colours."""
    image = Image.fromarray(classes)
    image.putpalette(voc_palette().tobytes())
    stream = BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()
