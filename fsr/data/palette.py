"""Masks as VOC stores them: PNG files of class ids with VOC's colour map. And which classes colours mean."""

from functools import cache
from io import BytesIO

import numpy as np
from PIL import Image

_IGNORED = 255
_WHITE = 0xFFFFFF


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


def classes_of_palette(palette: np.ndarray, used: np.ndarray, num_classes: int) -> np.ndarray | None:
    """Table from a mask's indices to classes, uint8 [256], where its palette has VOC's colours at other places.

    None where the indices are the classes: colours at VOC's own places, levels of grey, or colours of another taste.
    `palette` is uint8 [n, 3], `used` the indices that occur. Raises ValueError that says what was seen where some
    colours are VOC's at other places and others are none of VOC's.
    """
    used = used[used < len(palette)]
    colours = palette[used]
    places = used != _IGNORED  # whose colour is white, black or VOC's beige, as the editor pleases
    if (colours[places] == voc_palette()[used[places]]).all() or (colours == used[:, None]).all():
        return None
    classes = _classes_of(_codes(colours), num_classes)
    classes[~places & (classes == 0)] = -1  # more likely a place that the palette does not fill
    classes[~places & (_codes(colours) == _WHITE)] = _IGNORED
    known = classes >= 0
    if known.all():
        table = np.zeros(256, np.uint8)
        table[used] = classes
        return table
    moved = known & (classes != used)
    if not moved.any():
        return None
    raise ValueError(
        f"its index {used[moved][0]} has VOC's colour of class {classes[moved][0]}, but index {used[~known][0]} the "
        f"colour {_shown(_codes(colours)[~known][0])}, which is none of VOC's: which are the classes is not clear"
    )


def classes_of_colours(pixels: np.ndarray, num_classes: int) -> np.ndarray:
    """Classes of a mask that holds VOC's colours, or class ids as levels of grey: uint8 [H, W, 3] to [H, W].

    Raises ValueError that says what was seen for another colour, or where both could be meant.
    """
    codes = _codes(pixels)
    grey = pixels[..., 0]
    is_grey = bool((pixels == grey[..., None]).all() and ((grey < num_classes) | (grey == _IGNORED)).all())
    classes = _classes_of(codes, num_classes)
    classes[codes == _WHITE] = _IGNORED
    if (classes >= 0).all():
        if is_grey and (classes != grey).any():
            raise ValueError("levels of grey that may be class ids or VOC's colours")
        return classes.astype(np.uint8)
    if is_grey:
        return grey
    raise ValueError(f"the colour {_shown(codes[classes < 0].min())}, which is none of VOC's")


def _codes(colours: np.ndarray) -> np.ndarray:
    """Colours [..., 3] as one number each."""
    red, green, blue = np.moveaxis(colours.astype(np.int32), -1, 0)
    codes: np.ndarray = red << 16 | green << 8 | blue
    return codes


@cache
def _sorted_codes(num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    classes = np.array([*range(min(num_classes, _IGNORED)), _IGNORED])
    codes = _codes(voc_palette()[classes])
    order = codes.argsort()
    return codes[order], classes[order]


def _classes_of(codes: np.ndarray, num_classes: int) -> np.ndarray:
    """The class of each colour, -1 where VOC has none."""
    known, classes = _sorted_codes(num_classes)
    places = np.minimum(np.searchsorted(known, codes), len(known) - 1)
    return np.where(known[places] == codes, classes[places], -1)


def _shown(code: int) -> str:
    return f"({code >> 16}, {code >> 8 & 255}, {code & 255})"
