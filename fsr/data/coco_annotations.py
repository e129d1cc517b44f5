"""COCO's instances JSON: image-level labels, and masks in VOC's form.

Exporters write the same numbers in many ways; those of one meaning are taken, the others named by image or annotation.
"""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as rle

from fsr.data.coco import CocoSource
from fsr.data.images import IGNORED, MOST_PIXELS
from fsr.data.names import image_name, shown
from fsr.data.own_classes import FILE
from fsr.errors import UserError
from fsr.regular_file import read_regular

_LONGEST_OUTLINE = 4  # pixels of a polygon for each of its image; each takes 40 bytes to draw
_FLAGS = {"true": True, "false": False}
_FEW = 8  # outlines, of which a file's habits cannot be told


class Annotation(NamedTuple):
    """One object of an image."""

    place: str
    """Its id and file, for messages."""
    class_id: int
    """Its class, 1..80."""
    is_crowd: bool
    area: float | None
    """Pixels, as the JSON says; None where it does not."""
    segmentation: Any
    """As it stands in the JSON."""


@dataclass
class AnnotatedImage:
    """One image that has at least one annotation."""

    height: int
    width: int
    annotations: list[Annotation] = field(default_factory=list)

    @property
    def classes(self) -> tuple[int, ...]:
        """Its foreground classes, 1..80, rising; a crowd counts as its class."""
        return tuple(sorted({annotation.class_id for annotation in self.annotations}))


def read_annotations(source: CocoSource, split: str) -> dict[str, AnnotatedImage]:
    """The annotated images of `train` or `val` by name; images without annotation have no label and are left out.

    Raises UserError if the JSON is missing or damaged, or names a category that COCO has not; by its id for an image
    or annotation that is there twice, lacks something, or has what it cannot have.
    """
    file = source.annotation_file(split)
    try:
        content = json.loads(read_regular(file))
        things, categories = content["annotations"], _categories(source, content.get("categories") or [], file)
        annotations = [
            (_whole(raw, "image_id", place), _annotation(source, raw, categories, place))
            for raw, place in _each(things, "annotation", file)
        ]
        names, images = {}, {}
        for raw, place in _each(content["images"], "image", file):
            name = _name(raw, split, place)
            if name in images:
                raise UserError(f"{place} has the name {shown(name)}, which another image has, too")
            size = _whole(raw, "height", place), _whole(raw, "width", place)
            if min(size) < 1 or size[0] * size[1] > MOST_PIXELS:
                raise UserError(f"{place} is {size[1]} x {size[0]} pixels; allowed are 1 to {MOST_PIXELS:,}")
            names[_whole(raw, "id", place)], images[name] = name, AnnotatedImage(*size)
    except OSError as error:
        raise UserError(f"annotations {file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"annotations {file} are damaged: byte {error.start} is not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"annotations {file} are damaged: {error}") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"annotations {file} are not COCO's instances: {error!r}") from None
    for image_id, annotation in annotations:
        if image_id not in names:
            raise UserError(f"{annotation.place} is of image {image_id}, which is none of the file's")
        images[names[image_id]].annotations.append(annotation)
    images = {name: image for name, image in images.items() if image.annotations}
    if not images:
        raise UserError(f"annotations {file} have no image with an annotation")
    return images


def only_boxes(images: Iterable[AnnotatedImage]) -> bool:
    """Whether all outlines are upright boxes, as exporters of detectors write them, and there are some."""
    outlines = [annotation.segmentation for image in images for annotation in image.annotations]
    return len(outlines) >= _FEW and all(map(_is_box, outlines))


def _is_box(segmentation: Any) -> bool:
    polygon = segmentation
    if isinstance(polygon, list) and len(polygon) == 1:
        polygon = polygon[0]
    if not isinstance(polygon, list) or len(polygon) not in (8, 10) or any(_number(value) is None for value in polygon):
        return False
    corners = {(_number(x), _number(y)) for x, y in zip(polygon[::2], polygon[1::2], strict=True)}
    return len(corners) == 4 and all(len(set(values)) == 2 for values in zip(*corners, strict=True))


def _categories(source: CocoSource, raws: list[Any], file: Path) -> dict[int, int]:
    """Class by the category ids of this file, which names them: most number them as COCO does, some from 0 or 1 on
    without gaps. Raises UserError for another data set's categories."""
    usual, classes = source.class_of_category, {}
    alike = str if source.has_own_classes else str.lower  # of one's own, two may differ by capitals alone
    class_of_name = {alike(name): class_id for class_id, name in enumerate(source.class_names) if class_id}
    for raw, place in _each(raws, "category", file):
        number = _whole(raw, "id", place)
        meant = source.class_names[usual[number]] if number in usual else ""
        name = str(raw.get("name") or meant)
        class_id = class_of_name.get(alike(name.strip()))
        if class_id is None:
            whose = FILE if source.has_own_classes else "COCO"
            known = f"is {meant!r} in {whose}" if meant else f"{whose} has not"
            raise UserError(f"{place} is {shown(name)}, which {known}")
        classes[number] = class_id
    as_usual = classes.items() <= usual.items()  # whose other ids may occur, too
    return usual if as_usual else classes


def _each(raws: list[Any], what: str, file: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """The objects of a list, each with its place for messages. Raises UserError for one without an id of its own."""
    seen: set[int] = set()
    for index, raw in enumerate(raws):
        if not isinstance(raw, dict):
            raise UserError(f"{what} number {index} (from 0) in {file} must be an object, got {_brief(raw)}")
        number = _whole(raw, "id", f"{what} number {index} (from 0) in {file}")
        place = f"{what} {number} in {file}"
        if number in seen:
            raise UserError(f"{place} is there twice")
        seen.add(number)
        yield raw, place


def _name(raw: dict[str, Any], split: str, place: str) -> str:
    """An image's name without its ending, and without the folder where that image lies anyhow."""
    name = raw.get("file_name")
    if not isinstance(name, str):
        raise UserError(f"{place} must have a file_name, got {_brief(name)}")
    return image_name(name.removeprefix(f"{split}2014/"), place)


def _annotation(source: CocoSource, raw: dict[str, Any], categories: dict[int, int], place: str) -> Annotation:
    category = _whole(raw, "category_id", place)
    if category not in categories:
        known_as = f"{FILE}'s" if source.has_own_classes else "COCO's"
        whose = known_as if categories is source.class_of_category else "its file's"
        raise UserError(f"{place} has category {category}, which is none of {whose} {len(categories)}")
    crowd, area = raw.get("iscrowd", 0), raw.get("area")
    crowd = _FLAGS.get(crowd.lower(), crowd) if isinstance(crowd, str) else crowd
    is_crowd = crowd if isinstance(crowd, bool) else _whole({"iscrowd": crowd}, "iscrowd", place)
    if is_crowd not in (0, 1):
        raise UserError(f"{place} must have an iscrowd of 0 or 1, got {_brief(crowd)}")
    if area is not None:
        area = _number(area)
        if area is None or not 0 <= area < math.inf:
            raise UserError(f"{place} must have an area of pixels, got {_brief(raw['area'])}")
    return Annotation(place, categories[category], bool(is_crowd), area, raw.get("segmentation"))


def _whole(raw: dict[str, Any], name: str, place: str) -> int:
    """A field that is a whole number, written as one, with a point or as a text."""
    value = raw.get(name)
    number = value if type(value) is int else _number(value)
    if number is None or abs(number) >= 1 << 63 or (isinstance(number, float) and not number.is_integer()):
        raise UserError(f"{place} must have a whole number as {name}, got {_brief(value)}")
    return int(number)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return int(value) if isinstance(value, str) and value.strip().isdecimal() else float(value)
    except (ValueError, OverflowError):
        return None


def _brief(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value)  # which escapes all that is not ASCII
    return text if len(text) <= 80 else f"{text[:80]}…"


def draw_mask(image: AnnotatedImage) -> np.ndarray:
    """Class of every pixel, uint8 [H, W]: smaller objects lie over larger ones, and all over crowds, which are 255.

    Raises UserError, by the annotation's id, for a segmentation that is none of this image.
    """
    size = image.height, image.width

    def place(annotation: Annotation) -> tuple[bool, float]:
        area = _inside(annotation, *size).sum() if annotation.area is None else annotation.area
        return not annotation.is_crowd, -float(area)

    classes = np.zeros(size, np.uint8)
    for annotation in sorted(image.annotations, key=place):
        inside = _inside(annotation, *size)
        classes[inside] = IGNORED if annotation.is_crowd else annotation.class_id
    return classes


def _inside(annotation: Annotation, height: int, width: int) -> np.ndarray:
    """Pixels of an object given as polygons or as run lengths, bool [H, W]."""
    segmentation, place = annotation.segmentation, annotation.place
    if not segmentation:
        raise UserError(f"{place} has no segmentation, without which no mask can be drawn")
    if isinstance(segmentation, dict):
        return _runs(segmentation, height, width, place)
    if not isinstance(segmentation, list):
        raise UserError(f"{place} must have polygons or run lengths as segmentation, got {_brief(segmentation)}")
    polygons = segmentation if isinstance(segmentation[0], list) else [segmentation]  # a single one may stand alone
    points = [_polygon(polygon, height, width, place) for polygon in polygons]
    inside: np.ndarray = rle.decode(rle.merge(rle.frPyObjects(points, height, width))).astype(bool)
    return inside


def _polygon(polygon: Any, height: int, width: int, place: str) -> list[float]:
    """The corners x, y, x, y, … of a polygon, safe for pycocotools: it takes four numbers for a box, and for those that
    are far away gigabytes of memory, or the process."""
    numbers = [_number(value) for value in polygon] if isinstance(polygon, list) else []
    if len(numbers) < 6 or len(numbers) % 2 or None in numbers:
        raise UserError(f"{place} must have polygons of at least 3 corners x, y, got {_brief(polygon)}")
    corners = np.array(numbers, float).reshape(-1, 2)
    side = np.array([width, height])
    wrong = ~((corners >= -side) & (corners <= 2 * side)).all(1)
    if wrong.any():
        x, y = corners[wrong][0]
        raise UserError(f"{place} has a corner at {x:g}, {y:g}, far outside its image of {width} x {height} pixels")
    if np.abs(np.diff(corners, axis=0, append=corners[:1])).sum() > _LONGEST_OUTLINE * height * width + 4 * side.sum():
        raise UserError(f"{place} has an outline of {len(corners)} corners that is longer than any in its image")
    flat: list[float] = corners.flatten().tolist()
    return flat


def _runs(segmentation: dict[str, Any], height: int, width: int, place: str) -> np.ndarray:
    """Pixels of run lengths, column by column, in turns outside and inside, bool [H, W].

    They are not given to pycocotools, which writes behind its memory where they are damaged.
    """
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not isinstance(size, list) or [_number(side) for side in size] != [height, width]:
        raise UserError(f"{place} has run lengths of size {_brief(size)}, but its image [{height}, {width}]")
    runs = _uncompressed(counts) if isinstance(counts, str) else counts
    if (
        not isinstance(runs, list)
        or not all(type(run) is int and 0 <= run <= height * width for run in runs)
        or sum(runs) != height * width
    ):
        raise UserError(f"{place} has run lengths that do not add up to its image's {height * width} pixels")
    is_inside = np.arange(len(runs)) % 2 == 1
    inside: np.ndarray = np.repeat(is_inside, runs).reshape(width, height).T
    return inside


def _uncompressed(text: str) -> list[int] | None:
    """Run lengths from COCO's text: 5 bits a letter from `0` on, lowest first, of which a sixth says that more follow.

    From the third on, each is the difference to the last but one. None if it is no such text.
    """
    runs: list[int] = []
    value, shift = 0, 0
    for sign in text:
        bits = ord(sign) - ord("0")
        if not 0 <= bits < 64 or shift > 30:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value, shift = 0, 0
    return None if shift else runs
