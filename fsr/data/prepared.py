"""The base of VOC and COCO: a folder, class names, and prepared lists."""

import os
from pathlib import Path
from typing import ClassVar

import numpy as np

from fsr.data.image_set import ImageSet
from fsr.data.images import Mask, open_mask
from fsr.data.list_places import list_folder_of
from fsr.data.lists import Item, read_list
from fsr.data.own_classes import own_classes
from fsr.data.record import read_record, told
from fsr.errors import UnreadableError, UserError
from fsr.next_command import next_command

IMAGE_ENDINGS = (".jpg", ".JPG", ".jpeg", ".JPEG", ".png", ".PNG")
MASK_ENDINGS = (".png", ".PNG")


class PreparedSet(ImageSet):
    """A data set below `data_folder`, of which the first `num_classes` classes (background included) are used.

    Its classes are those of its classes.txt, else `all_class_names`. Raises UserError if it is not there or has fewer
    classes.
    """

    usual_name: ClassVar[str]
    """The data set that a folder of any name holds."""

    own_sign: ClassVar[str]
    """What no other data set's folder has."""

    layouts: ClassVar[tuple[str, ...]]
    """Folders of a data folder in which the set may lie, the usual one first."""

    signs: ClassVar[tuple[str, ...]]
    """Folders of which the set's own holds one: that may be given as the data folder, as to the released code."""

    def __init__(
        self,
        kind: str,
        all_class_names: tuple[str, ...],
        data_folder: Path,
        list_folder: Path | None,
        num_classes: int | None,
    ) -> None:
        root = self.root_in(data_folder)
        if root is None:
            depths = (data_folder.glob(f"{'*/' * depth}{self.own_sign}") for depth in (1, 2, 3))
            below = next((path.parents[1] for paths in depths for path in paths), None)
            there = "" if below is None else f"; {below} looks like it: give that folder"
            raise UnreadableError(f"data folder {data_folder} must hold {self.layouts[0]}, which is missing{there}")
        self.root = root
        self.is_synthetic = (self.root / "synthetic.json").exists()
        self.mapped_by_colour: set[Path] = set()  # masks, for `prepare`, which says so
        own = own_classes(root, data_folder)
        self.has_own_classes = own is not None
        which, names = own or (kind, all_class_names)
        if num_classes is not None and num_classes > len(names):
            raise UserError(f"num_classes must be at most {len(names)} for {which}, got {num_classes}")
        self.class_names = names[:num_classes]
        self.list_folder = list_folder or list_folder_of(self.root)
        where: list[str | Path] = [] if list_folder is None else ["--list_folder", list_folder]
        self.remedy = next_command("prepare", kind, data_folder, *where)
        self.record = read_record(self.list_folder, self.remedy)
        # Where masks are looked for first, if not inside the data set: what `prepare` wrote down.
        self.mask_folder = None if self.record.mask_folder is None else self.list_folder / self.record.mask_folder

    @classmethod
    def root_in(cls, data_folder: Path) -> Path | None:
        """The folder of the set itself; None where there is none."""
        roots = [data_folder / layout for layout in cls.layouts]
        if any((data_folder / sign).is_dir() for sign in cls.signs):
            roots.insert(0, data_folder)
        return next((root for root in roots if root.is_dir()), None)

    def items(self, split: str) -> list[Item]:
        """The images of the prepared list `split`. Raises UserError if it is missing, damaged, or has no labels."""
        file = self.list_folder / f"{split}.txt"
        items = read_list(file, len(self.class_names), self.remedy)
        if self.has_ground_truth(split) and not any(item.classes for item in items):
            raise UserError(f"list {file} has no labels (`NAME 1,15`); make it anew with `{self.remedy}`")
        return items

    def left_out(self, split: str) -> str | None:
        """A sentence about the images that `prepare` left out of a list, None if it left out none."""
        return told(self.record, split, self.list_folder)

    def has_ground_truth(self, split: str) -> bool:
        """Whether the images of a set have masks. Only the evaluation server has those of a test set."""
        return not split.startswith("test")

    def ground_truth(self, name: str, split: str, size: tuple[int, int] | None) -> np.ndarray | None:
        """Class of every pixel, uint8 [H, W], 255 ignored, None where there is no ground truth.

        `size` is the (width, height) of its image; None where that is not known.
        Raises UserError as `open_mask` does.
        """
        file = self.mask_file(name, split)
        return None if file is None else self.noted(file, open_mask(file, size, len(self.class_names)))

    def noted(self, file: Path, mask: Mask) -> np.ndarray:
        """The classes of a mask. Notes the file if its colours tell them."""
        if mask.by_colour:
            self.mapped_by_colour.add(file)
        return mask.classes


def file_of(folder: Path, name: str, endings: tuple[str, ...]) -> Path:
    """The file of this name that is there, by the first of the endings that fits; the first if none is there.

    A link to nothing is there, and whoever reads it says so: nothing else is taken in its place.
    """
    files = [folder / f"{name}{ending}" for ending in endings]
    return next((file for file in files if os.path.lexists(file)), files[0])
