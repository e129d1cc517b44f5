"""The record of an image that an inference has done: a line of a journal, which tells by itself whether it is whole."""

import json
from typing import Any, TypedDict
from zlib import crc32

from fsr.data.images import MOST_PIXELS
from fsr.data.names import check_name, check_path
from fsr.errors import UserError
from fsr.json_file import DamagedError, parse_json

# Counts of every pixel whose ground truth is a class; pseudo labels may leave out more.
_OF_ALL_PIXELS = ("segmentation", "crf", "cam", "aux_cam", "single_scale", "gated")
_KINDS = (*_OF_ALL_PIXELS, "pseudo_labels")
_ERRORS = {"boundary", "trimap", "calibration"}  # fsr.inference.error_counts.ErrorCounts, which needs torch


class _Named(TypedDict):
    name: str


class ImageRecord(_Named, total=False):
    """What a journal says of an image."""

    skipped: str
    """Why it could not be read; then nothing else is known."""
    iou: float | None
    """Mean IoU of its classes; None where no pixel of the ground truth counts."""
    classes: list[int]
    """In its ground truth or its prediction; background left out."""
    counts: dict[str, Any]
    """By kind of scores, index and count of each entry that is not 0, in turns. Only with ground truth."""
    errors: dict[str, dict[str, Any]]
    """By kind of labels and name of ErrorCounts, in the same way; lines of version 0.1.0 have none."""
    # Of plain pictures alone.
    size: tuple[int, int]
    """Width and height as it is shown."""
    predicted: list[int]
    """Classes that the network predicts: those of its CAMs."""
    areas: list[int]
    """Class and its pixels in the label map, in turns; background included."""


class _Line(ImageRecord, total=False):
    crc32: int  # of the rest; lines of version 0.1.0 have none


def line_of(record: ImageRecord) -> bytes:
    """A record as a line of a journal."""
    return _text({**record, "crc32": _checksum(record)}) + b"\n"


def record_of(line: bytes, place: str) -> ImageRecord:
    """The record in a line; `place` is where it stands, for messages.

    Raises DamagedError for one that is not as it was written, or that no inference could have written.
    """
    found = parse_json(line, _Line, place)
    checksum = found.pop("crc32", None)
    if checksum is not None and checksum != _checksum(found):
        raise DamagedError(f"{place} is damaged: its checksum is another one")
    try:
        check_path(found["name"], place) if checksum is not None else check_name(found["name"], place)
    except UserError as error:
        raise DamagedError(str(error)) from None
    if checksum is None and not found.keys() & {"counts", "skipped"}:  # of an image without ground truth, or a rest
        raise DamagedError(f"{place} is damaged: it has neither a checksum nor counts")
    iou, counts = found.get("iou"), found.get("counts", {})
    if iou is not None and not 0 <= iou <= 1:
        raise DamagedError(f"{place} is damaged: an IoU of {iou} cannot be")
    pixels = {kind: _pixels(kind, pairs, place) for kind, pairs in counts.items()}
    whole = {pixels[kind] for kind in _OF_ALL_PIXELS if kind in pixels}
    if len(whole) > 1 or pixels.get("pseudo_labels", 0) > max(whole, default=0):
        raise DamagedError(f"{place} is damaged: its counts are of different numbers of pixels, {pixels}")
    for kind, errors in found.get("errors", {}).items():
        wrong = {name for name, pairs in errors.items() if {_pixels(kind, pairs, place, name)} != whole}
        if wrong or errors.keys() != _ERRORS:
            raise DamagedError(f"{place} is damaged: its errors of {kind} are not those of the pixels of its counts")
    return found


def _pixels(kind: str, pairs: Any, place: str, name: str = "") -> int:
    """How many pixels were counted. Raises DamagedError for counts that cannot be."""
    if kind not in _KINDS or not isinstance(pairs, list) or len(pairs) % 2 or {*map(type, pairs)} - {int}:
        raise DamagedError(f"{place} is damaged: counts of {kind} must be pairs of whole numbers")
    index, count = pairs[::2], pairs[1::2]
    possible = all(n > 0 for n in count)
    rising = all(before < after for before, after in zip([-1, *index], index, strict=False))
    if name == "calibration":  # each third entry sums confidences
        count = [n for at, n in zip(index, count, strict=True) if at % 3 < 2]
    pixels = sum(count)
    if not (rising and possible) or pixels > MOST_PIXELS:
        raise DamagedError(f"{place} is damaged: counts of {kind} cannot be of an image")
    return pixels


def _text(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _checksum(record: ImageRecord) -> int:
    return crc32(_text(record))
