"""Reads pictures and masks. Every problem with a file becomes a UserError of one sentence that names the file."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple, TypeAlias

import numpy as np
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from fsr.data.palette import classes_of_colours, classes_of_palette
from fsr.errors import UserError, unreadable
from fsr.regular_file import open_regular

IGNORED = 255  # pixels without a class, in masks, label maps and losses

END_OF_IMAGE = b"\xff\xd9"  # in JPEG files
_START_OF_SCAN = b"\xff\xda"

Kind: TypeAlias = Literal["image", "mask"]
# What may decode a file, whatever its name says: some .jpg of ImageNet are PNG. Another format is not even tried, for
# that of PostScript would run Ghostscript.
FORMATS: dict[Kind, tuple[str, ...]] = {"image": ("JPEG", "PNG"), "mask": ("PNG",)}
_OTHER_FORMATS = ("GIF", "WEBP", "TIFF", "BMP", "JPEG2000", "AVIF", "EPS", "PPM")  # which a message tells by name

# What an orientation in EXIF asks viewers to do.
_TURNS: dict[object, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Where Pillow, too, suspects a decompression bomb. Data sets of this field have pictures of up to 50 million pixels.
MOST_PIXELS = 89_478_485
MOST_BYTES = 1 << 30
# Of bombs, which are refused here, and of damage to what is not read: EXIF, further pictures in a JPEG.
warnings.filterwarnings("ignore", module=r"PIL\.")


def read_image(file: Path, *, upright: bool = False) -> Image.Image:
    """The picture as RGB, as it is stored: an orientation in its EXIF turns nothing, as the masks are drawn on that.
    `upright` turns it as viewers do.

    Raises UserError if it is missing, cut, damaged or no regular file, no JPEG or PNG, too large, or if it has no one
    rendering in 8-bit colours: 16 bits a channel, several frames, pixels that can be seen through.
    """
    with refusing(file, "image"):
        content = _content(file)
        picture = open_picture(BytesIO(content), "image")
        if "16" in str(picture.tile[0].args):
            raise ValueError("it has 16 bits a channel; save it with 8")
        if picture.has_transparency_data and min(picture.convert("RGBA").getchannel("A").tobytes()) < 255:
            raise ValueError("it has transparent pixels; save it on the background that is meant")
        rgb: Image.Image = picture.convert("RGB")
        # An interrupted copy may leave zeros, which Pillow decodes as grey without a word.
        if content.endswith(bytes(64)) and _ends_in_zeros(content, picture):
            raise ValueError("its second part is all zeros")
        return _turned(picture, rgb) if upright else rgb


def _turned(picture: ImageFile.ImageFile, rgb: Image.Image) -> Image.Image:
    """The pixels `rgb` of a picture as its EXIF says that they are to be shown; damaged EXIF says nothing."""
    try:
        orientation = picture.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # of damaged bytes Pillow raises nearly everything
        return rgb
    turn = _TURNS.get(orientation)
    return rgb if turn is None else rgb.transpose(turn)


def _ends_in_zeros(content: bytes, picture: Image.Image) -> bool:
    return picture.format != "PNG" and content.rfind(END_OF_IMAGE) < content.rfind(_START_OF_SCAN)


class Mask(NamedTuple):
    """A mask that was read."""

    classes: np.ndarray
    """Class of every pixel, uint8 [H, W]; 255 is ignored."""
    by_colour: bool
    """Whether its colours say so, not its values."""


def read_mask(file: Path, size: tuple[int, int] | None, num_classes: int) -> np.ndarray:
    """Class of every pixel, uint8 [H, W]; 255 is ignored. Raises UserError as `open_mask` does."""
    return open_mask(file, size, num_classes).classes


def open_mask(file: Path, size: tuple[int, int] | None, num_classes: int) -> Mask:
    """The classes of a mask: of its values, or of VOC's colours where it has these in another order or as RGB.

    `size` is the (width, height) of its image; None where that is not known. Raises UserError if the mask is missing,
    cut or damaged, no PNG, has values or colours that do not say which classes are meant, has another size, or a class
    that is neither below `num_classes` nor 255.
    """
    with refusing(file, "mask"):
        image = open_picture(BytesIO(_content(file)), "mask")
        stored, values = str(image.tile[0].args), np.array(image)
    if stored in ("1", "L;2", "L;4"):
        # PNG spreads such values over 0 to 255, and what wrote them may have meant them as they are.
        raise UserError(f"mask {file} must hold class ids in 8 bits (PNG of mode P or L), got grey of fewer ({stored})")
    height, width = values.shape[:2]
    if size is not None and (width, height) != size:
        raise UserError(f"mask {file} is {width} x {height} pixels, its image {size[0]} x {size[1]}")
    by_colour = image.mode in ("RGB", "RGBA") and "16" not in stored
    wanted = f"mask {file} must hold class ids (PNG of mode P or L) or VOC's colours, got"
    try:
        if image.mode == "P":
            palette = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
            table = classes_of_palette(palette, np.flatnonzero(image.histogram()), num_classes)
            by_colour = table is not None
            values = values if table is None else table[values]
        elif by_colour:
            if (values[..., 3:] != 255).any():
                raise ValueError("transparent pixels")
            values = classes_of_colours(values[..., :3], num_classes)
    except ValueError as error:
        raise UserError(f"{wanted} mode {image.mode}: {error}") from None
    if not by_colour and image.mode not in ("P", "L", "I;16"):
        raise UserError(f"{wanted} mode {image.mode}")
    check_classes(values, file, num_classes)
    return Mask(values.astype(np.uint8, copy=False), by_colour)


def check_classes(classes: np.ndarray, file: Path, num_classes: int) -> None:
    """Raises UserError if a mask's classes [H, W] hold one that is neither below `num_classes` nor 255."""
    impossible = (classes >= num_classes) & (classes != IGNORED)
    if impossible.any():
        found = classes[impossible].min()
        raise UserError(f"mask {file} has class {found}; allowed are 0 to {num_classes - 1} and {IGNORED}")


def open_picture(stream: BinaryIO, kind: Kind) -> ImageFile.ImageFile:
    """The picture in a stream, which is decoded when its pixels are asked for. The one place that opens pictures.

    All checksums of a PNG are compared, which Pillow leaves out where it decodes. Raises ValueError, and whatever
    Pillow raises, if it is of another format, damaged or too large, or has several frames.
    """
    try:
        picture = _within_limits(Image.open(stream, formats=FORMATS[kind]))
        if picture.format == "PNG":
            picture.verify()
            stream.seek(0)
            picture = Image.open(stream, formats=FORMATS[kind])
            if getattr(picture, "n_frames", 1) > 1:
                raise ValueError(f"it is an animation of {picture.n_frames} frames")  # type: ignore[attr-defined]
    except UnidentifiedImageError:
        raise ValueError(_unidentified(stream, kind)) from None
    return picture


def _within_limits(picture: ImageFile.ImageFile) -> ImageFile.ImageFile:
    width, height = picture.size
    if not 0 < width * height <= MOST_PIXELS:
        raise ValueError(f"it has {width} x {height} pixels; allowed are 1 to {MOST_PIXELS:,}")
    return picture


def _unidentified(stream: BinaryIO, kind: Kind) -> str:
    Image.init()  # knows the beginnings of all formats
    stream.seek(0)
    beginning = stream.read(16)
    for name in (*FORMATS["image"], *_OTHER_FORMATS):
        _, accepts = Image.OPEN.get(name, (None, None))
        if accepts is not None and accepts(beginning):
            if name in FORMATS[kind]:
                return f"its {name} header is damaged"
            return f"it is of format {name}; allowed: {', '.join(FORMATS[kind])}"
    return "not a picture"


@contextmanager
def refusing(file: Path, kind: Kind) -> Iterator[None]:
    """Let what reading a picture raises be a UserError that names its file."""
    try:
        yield
    except (MemoryError, UserError):
        raise
    except Exception as error:  # of damaged bytes Pillow's decoders raise nearly everything, and say nowhere what
        raise unreadable(error)(f"{kind} {file} cannot be read: {reason(error)}") from None


def _content(file: Path) -> bytes:
    with open_regular(file) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > MOST_BYTES:
            raise ValueError(f"it has {size:,} bytes; allowed are {MOST_BYTES:,}")
        return stream.read()


def reason(error: Exception) -> str:
    """The reason of an error, without the file name, which the caller adds."""
    if isinstance(error, Image.DecompressionBombError):
        return f"it has more than the allowed {MOST_PIXELS:,} pixels"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
