"""MS COCO 2014 on disk, and sets of one's own in its layout."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fsr.data.coco_layouts import layouts, own_layout, recognise, to_classes
from fsr.data.images import check_classes, open_mask, read_mask
from fsr.data.lists import Item
from fsr.data.names import shown
from fsr.data.prepared import IMAGE_ENDINGS, MASK_ENDINGS, PreparedSet, file_of
from fsr.errors import UserError

# COCO's 80 categories in the order of their ids, which have gaps; a mask holds the place in this list, from 1.
# fmt: off
CATEGORIES = {
    1: "person", 2: "bicycle", 3: "car", 4: "motorcycle", 5: "airplane", 6: "bus", 7: "train", 8: "truck", 9: "boat",
    10: "traffic light", 11: "fire hydrant", 13: "stop sign", 14: "parking meter", 15: "bench", 16: "bird", 17: "cat",
    18: "dog", 19: "horse", 20: "sheep", 21: "cow", 22: "elephant", 23: "bear", 24: "zebra", 25: "giraffe",
    27: "backpack", 28: "umbrella", 31: "handbag", 32: "tie", 33: "suitcase", 34: "frisbee", 35: "skis",
    36: "snowboard", 37: "sports ball", 38: "kite", 39: "baseball bat", 40: "baseball glove", 41: "skateboard",
    42: "surfboard", 43: "tennis racket", 44: "bottle", 46: "wine glass", 47: "cup", 48: "fork", 49: "knife",
    50: "spoon", 51: "bowl", 52: "banana", 53: "apple", 54: "sandwich", 55: "orange", 56: "broccoli", 57: "carrot",
    58: "hot dog", 59: "pizza", 60: "donut", 61: "cake", 62: "chair", 63: "couch", 64: "potted plant", 65: "bed",
    67: "dining table", 70: "toilet", 72: "tv", 73: "laptop", 74: "mouse", 75: "remote", 76: "keyboard",
    77: "cell phone", 78: "microwave", 79: "oven", 80: "toaster", 81: "sink", 82: "refrigerator", 84: "book",
    85: "clock", 86: "vase", 87: "scissors", 88: "teddy bear", 89: "hair drier", 90: "toothbrush",
}
# fmt: on
CLASS_NAMES = ("background", *CATEGORIES.values())
ANY_VALUE = 256
MASKS_TO_RECOGNISE = 500  # nearly always the first few suffice
CLASS_OF_CATEGORY = {category: index for index, category in enumerate(CATEGORIES, 1)}
LAYOUTS = layouts(CLASS_OF_CATEGORY)


class CocoSource(PreparedSet):
    """Where the files of COCO 2014 lie below `data_folder`."""

    usual_name = "COCO"
    own_sign = "annotations/instances_train2014.json"
    layouts = ("COCO", "coco")
    signs = ("JPEGImages", "annotations", "images/train2014", "train2014")

    def __init__(self, data_folder: Path, list_folder: Path | None = None, num_classes: int | None = None) -> None:
        super().__init__("coco", CLASS_NAMES, data_folder, list_folder, num_classes)
        # By the ids of categories and the values of masks; both are the classes themselves in a set of one's own.
        self.class_of_category, self.mask_layouts = CLASS_OF_CATEGORY, LAYOUTS
        if self.has_own_classes:
            self.class_of_category = {class_id: class_id for class_id in range(1, len(self.class_names))}
            self.mask_layouts = own_layout(len(self.class_names))
        self.layout: dict[str, str] = {}  # by split, how masks number their classes, once they are recognised
        images = [self.root / "JPEGImages", self.root / "images", self.root]  # as rearranged, and as unzipped
        years = ("train2014", "val2014")
        self._images = next((place for place in images if any((place / year).is_dir() for year in years)), images[0])

    def image_file(self, name: str, split: str) -> Path:
        """The picture of an image, whose folder is part of its name."""
        return file_of(self._images / _year_folder(name), name, IMAGE_ENDINGS)

    def mask_file(self, name: str, split: str) -> Path | None:
        """The ground truth of an image in VOC's form, or where it is to be drawn; None in a test set."""
        if not self.has_ground_truth(split):
            return None
        own = self.root / "SegmentationClass"
        folders = [place / year for place in (self.mask_folder or own, own) for year in (_year_folder(name), "")]
        files = (file_of(folder, name, MASK_ENDINGS) for folder in folders)
        usual = folders[0] / f"{name}{MASK_ENDINGS[0]}"
        return next((file for file in files if os.path.lexists(file)), usual)

    def ground_truth(self, name: str, split: str, size: tuple[int, int] | None) -> np.ndarray | None:
        """As in any set; masks that hold COCO's own category ids are recognised, and mapped."""
        file = self.mask_file(name, split)
        if file is None:
            return None
        if split not in self.layout:
            self.recognise_masks(split, self.items(split))
        classes = to_classes(
            self.noted(file, open_mask(file, size, ANY_VALUE)), self.mask_layouts[self.layout[split]], file
        )
        check_classes(classes, file, len(self.class_names))
        return classes

    def is_annotated(self, name: str) -> bool:
        """Every image is."""
        return True

    def recognise_masks(self, split: str, items: list[Item]) -> None:
        """Find out how the masks of a set number their classes, from its images and their labels."""

        def masks() -> Iterator[tuple[Path, np.ndarray, tuple[int, ...]]]:
            for item in items[:MASKS_TO_RECOGNISE]:
                file = self.mask_file(item.name, split)
                if file is None:
                    continue
                try:
                    yield file, read_mask(file, None, ANY_VALUE), item.classes
                except UserError:
                    continue  # the reader of this image reports it

        self.layout[split] = recognise(masks(), self.mask_layouts)

    def annotation_file(self, split: str) -> Path:
        """COCO's own annotations of `train` or `val`."""
        return self.root / "annotations" / f"instances_{split}2014.json"


def _year_folder(name: str) -> str:
    """`train2014` of `COCO_train2014_000000000009`. Raises UserError for another name."""
    found = re.fullmatch(r"COCO_([a-z]+[0-9]{4})_[0-9]+", name)
    if found is None:
        raise UserError(f"a COCO image is named like COCO_train2014_000000000009, got {shown(name)}")
    return found[1]
