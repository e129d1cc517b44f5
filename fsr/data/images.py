"""Reads pictures and masks. Every problem with a file becomes a UserError of one sentence that names the file."""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from fsr.errors import UserError, unreadable
from fsr.regular_file import open_regular, read_regular

IGNORED = 255  # pixels without a class, in masks, label maps and losses

END_OF_IMAGE = b"\xff\xd9"  # in JPEG files
_START_OF_SCAN = b"\xff\xda"

# What Pillow raises for damaged files, besides OSError (which it raises for cut ones).
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


def read_image(file: Path) -> Image.Image:
    """The picture as RGB. Raises UserError if it is missing, cut, damaged or no regular file."""
    try:
        content = read_regular(file)
        with Image.open(BytesIO(content)) as image:
            picture: Image.Image = image.convert("RGB")
    except UNREADABLE as error:
        raise unreadable(error)(f"image {file} cannot be read: {reason(error)}") from None
    # An interrupted copy may leave zeros, which Pillow decodes as grey without a word.
    if content.endswith(bytes(64)) and content.rfind(END_OF_IMAGE) < content.rfind(_START_OF_SCAN):
        raise UserError(f"image {file} cannot be read: its second part is all zeros")
    return picture


def read_mask(file: Path, size: tuple[int, int] | None, num_classes: int) -> np.ndarray:
    """Class of every pixel, uint8 [H, W]; 255 is ignored.

    `size` is the (width, height) of its image; None where that is not known. Raises UserError if the mask is missing,
    cut or damaged, holds colours instead of class ids, has another size, or a class that is neither below
    `num_classes` nor 255.
    """
    try:
        with open_regular(file) as stream, Image.open(stream) as image:
            mode, classes = image.mode, np.array(image)
    except UNREADABLE as error:
        raise unreadable(error)(f"mask {file} cannot be read: {reason(error)}") from None
    if mode not in ("P", "L"):
        raise UserError(f"mask {file} must hold class ids (PNG of mode P or L), got mode {mode}")
    height, width = classes.shape
    if size is not None and (width, height) != size:
        raise UserError(f"mask {file} is {width} x {height} pixels, its image {size[0]} x {size[1]}")
    check_classes(classes, file, num_classes)
    return classes


def check_classes(classes: np.ndarray, file: Path, num_classes: int) -> None:
    """Raises UserError if a mask's classes [H, W] hold one that is neither below `num_classes` nor 255."""
    impossible = (classes >= num_classes) & (classes != IGNORED)
    if impossible.any():
        found = classes[impossible].min()
        raise UserError(f"mask {file} has class {found}; allowed are 0 to {num_classes - 1} and {IGNORED}")


def reason(error: Exception) -> str:
    """The reason of an error, without the file name, which the caller adds."""
    return getattr(error, "strerror", None) or ("not a picture" if "cannot identify" in str(error) else str(error))
