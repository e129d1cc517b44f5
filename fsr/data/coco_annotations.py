"""COCO's instances JSON: image-level labels, and masks in VOC's form."""

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pycocotools import mask as rle

from fsr.data.coco import CLASS_OF_CATEGORY, CocoSource
from fsr.data.images import IGNORED
from fsr.errors import UserError
from fsr.regular_file import read_regular


@dataclass
class AnnotatedImage:
    """One image that has at least one annotation."""

    height: int
    width: int
    annotations: list[dict[str, Any]] = field(default_factory=list)
    """As they stand in the JSON."""

    @property
    def classes(self) -> tuple[int, ...]:
        """Its foreground classes, 1..80, rising; a crowd counts as its class."""
        return tuple(sorted({CLASS_OF_CATEGORY[annotation["category_id"]] for annotation in self.annotations}))


def read_annotations(source: CocoSource, split: str) -> dict[str, AnnotatedImage]:
    """The annotated images of `train` or `val` by name; images without annotation have no label and are left out.

    Raises UserError if the JSON is missing or damaged, or names a category that COCO has not.
    """
    file = source.annotation_file(split)
    try:
        content = json.loads(read_regular(file))
        annotations = defaultdict(list)
        for annotation in content["annotations"]:
            annotations[annotation["image_id"]].append(annotation)
            if annotation["category_id"] not in CLASS_OF_CATEGORY:
                raise UserError(
                    f"annotation {annotation['id']} in {file} has category {annotation['category_id']}, "
                    f"which is none of COCO's {len(CLASS_OF_CATEGORY)}"
                )
        images = {
            image["file_name"].rpartition(".")[0]: AnnotatedImage(
                image["height"], image["width"], annotations[image["id"]]
            )
            for image in content["images"]
            if image["id"] in annotations
        }
    except OSError as error:
        raise UserError(f"annotations {file} cannot be read: {error.strerror}") from None
    except json.JSONDecodeError as error:
        raise UserError(f"annotations {file} are damaged: {error}") from None
    except (KeyError, TypeError) as error:
        raise UserError(f"annotations {file} are not COCO's instances: {error!r}") from None
    if not images:
        raise UserError(f"annotations {file} have no image with an annotation")
    return images


def draw_mask(image: AnnotatedImage) -> np.ndarray:
    """Class of every pixel, uint8 [H, W]: smaller objects lie over larger ones, and all over crowds, which are 255."""
    classes = np.zeros((image.height, image.width), np.uint8)
    for annotation in sorted(image.annotations, key=lambda a: (not a["iscrowd"], -a["area"])):
        inside = _decode(annotation["segmentation"], image.height, image.width)
        classes[inside] = IGNORED if annotation["iscrowd"] else CLASS_OF_CATEGORY[annotation["category_id"]]
    return classes


def _decode(segmentation: list[list[float]] | dict[str, Any], height: int, width: int) -> np.ndarray:
    """Pixels of an object given as polygons or as run lengths, bool [H, W]."""
    if isinstance(segmentation, list):
        segmentation = rle.merge(rle.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        segmentation = rle.frPyObjects(segmentation, height, width)
    inside: np.ndarray = rle.decode(segmentation).astype(bool)
    return inside
