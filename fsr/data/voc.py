"""PASCAL VOC 2012 on disk, and sets in its layout: the synthetic one, and those of one's own."""

import os
from collections.abc import Collection
from functools import cached_property
from pathlib import Path

import numpy as np

from fsr.data.images import check_classes, refusing
from fsr.data.lists import Item
from fsr.data.names import shown
from fsr.data.own_classes import FILE
from fsr.data.prepared import IMAGE_ENDINGS, MASK_ENDINGS, PreparedSet, file_of
from fsr.data.sbd import read_sbd
from fsr.errors import UnreadableError

CLASS_NAMES = (
    "background",
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


class VocSource(PreparedSet):
    """Where the files of VOC 2012, or 2007, lie below `data_folder`."""

    usual_name = "VOC2012"
    own_sign = "ImageSets/Segmentation"
    layouts = ("VOCdevkit/VOC2012", "VOC2012", "VOCdevkit/VOC2007", "VOC2007")
    signs = ("JPEGImages",)

    def __init__(self, data_folder: Path, list_folder: Path | None = None, num_classes: int | None = None) -> None:
        super().__init__("voc", CLASS_NAMES, data_folder, list_folder, num_classes)
        self.unknown: set[tuple[str, str]] = set()  # images and classes of objects in XMLs, for `prepare`
        self.own_masks = self.root / "SegmentationClass"
        self._unzipped = data_folder / "benchmark_RELEASE" / "dataset" / "cls"

    @property
    def is_voc(self) -> bool:
        """Whether its classes are VOC's; the synthetic set stands for it."""
        return self.is_synthetic or not self.has_own_classes

    @cached_property
    def augmented_masks(self) -> Path:
        """Masks of train and val by SBD, to be added to VOC by hand: in it, beside it as they are unzipped, or where
        `prepare` was told."""
        if self.mask_folder is not None:
            return self.mask_folder
        usual = self.root / "SegmentationClassAug"
        places = (usual / usual.name, usual, self._unzipped)  # the first as some archives unpack
        return next((place for place in places if place.is_dir()), usual)

    def no_such_classes(self, unknown: Collection[str]) -> str:
        """What can be done about the classes that the XMLs have and this set has not, in a sentence."""
        seen = ", ".join(map(shown, sorted(unknown)[:30]))
        return f"classes of your own ({seen}) have to stand in {self.root / FILE}, one a line"

    @property
    def augmented_list(self) -> Path | None:
        """The list of train_aug that somebody put beside VOC's own."""
        folder = self.root / "ImageSets" / "Segmentation"
        return next(
            (file for file in (folder / "train_aug.txt", folder / "trainaug.txt") if os.path.lexists(file)), None
        )

    @property
    def no_augmented_list(self) -> str:
        """What `prepare` needs to make the list train_aug, and what can be done without."""
        return (
            f"{self.augmented_masks} is missing (SBD, to be added by hand), and so is a list train_aug.txt in "
            f"{self.root / 'ImageSets' / 'Segmentation'}; --train_set train trains on VOC's own images"
        )

    def items(self, split: str) -> list[Item]:
        """As in any set. Raises UserError that says what is missing where `prepare` cannot make train_aug."""
        file = self.list_folder / f"{split}.txt"
        can_be_made = self.augmented_list is not None or self.augmented_masks.is_dir()
        if split == "train_aug" and not can_be_made and not file.exists():
            raise UnreadableError(f"list {file} is missing, and {self.no_augmented_list}")
        return super().items(split)

    def annotation_file(self, name: str) -> Path:
        """The XML with the objects of an image, which may be missing."""
        return self.root / "Annotations" / f"{name}.xml"

    def is_annotated(self, name: str) -> bool:
        """Whether more than its mask tells what an image shows."""
        return os.path.lexists(self.annotation_file(name))

    def image_file(self, name: str, split: str) -> Path:
        """The picture of an image."""
        return file_of(self.root / "JPEGImages", name, IMAGE_ENDINGS)

    def mask_file(self, name: str, split: str) -> Path | None:
        """The ground truth of an image: VOC's own mask if it has one, else an augmented mask (SBD); in train_aug the
        other way round. None in the test set."""
        if not self.has_ground_truth(split):
            return None
        own = file_of(self.own_masks, name, MASK_ENDINGS)
        augmented = file_of(self.augmented_masks, name, (*MASK_ENDINGS, ".mat"))
        first, second = (augmented, own) if split.startswith("train_aug") else (own, augmented)
        return first if os.path.lexists(first) or not os.path.lexists(second) else second

    def ground_truth(self, name: str, split: str, size: tuple[int, int] | None) -> np.ndarray | None:
        """As in any set; SBD's own files (.mat) are read where SciPy is there."""
        file = self.mask_file(name, split)
        if file is None or file.suffix != ".mat":
            return super().ground_truth(name, split, size)
        with refusing(file, "mask"):
            classes = read_sbd(file, size)
        check_classes(classes, file, len(self.class_names))
        return classes
