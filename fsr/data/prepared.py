"""The base of VOC and COCO: a folder, class names, and prepared lists."""

import shlex
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np

from fsr.data.images import read_mask
from fsr.data.lists import Item, read_list
from fsr.errors import UnreadableError, UserError


class PreparedSet(ABC):
    """A data set at `data_folder`/`layout`, of which the first `num_classes` classes (background included) are used.

    `data_folder` may also be the folder of the set itself, as in the released code's command lines. Raises UserError if
    it is not there or has fewer classes.
    """

    def __init__(
        self,
        kind: str,
        layout: str,
        all_class_names: tuple[str, ...],
        data_folder: Path,
        list_folder: Path | None,
        num_classes: int,
    ) -> None:
        self.root = data_folder if (data_folder / "JPEGImages").is_dir() else data_folder / layout
        if not self.root.is_dir():
            raise UnreadableError(f"data folder {data_folder} must hold {layout}, which is missing")
        if num_classes > len(all_class_names):
            raise UserError(f"num_classes must be at most {len(all_class_names)} for {kind}, got {num_classes}")
        self.class_names = all_class_names[:num_classes]
        self.list_folder = list_folder or self.root / "ImageSets" / "fsr"
        self.remedy = f"python -m fsr.data.prepare {kind} {shlex.quote(str(data_folder))}"
        if list_folder is not None:
            self.remedy += f" --list_folder {list_folder}"

    def items(self, split: str) -> list[Item]:
        """The images of the prepared list `split`. Raises UserError if it is missing, damaged, or has no labels."""
        file = self.list_folder / f"{split}.txt"
        items = read_list(file, len(self.class_names), self.remedy)
        if self.has_ground_truth(split) and not any(item.classes for item in items):
            raise UserError(f"list {file} has no labels (`NAME 1,15`); make it anew with `{self.remedy}`")
        return items

    def has_ground_truth(self, split: str) -> bool:
        """Whether the images of a set have masks. Only the evaluation server has those of a test set."""
        return not split.startswith("test")

    @abstractmethod
    def image_file(self, name: str, split: str) -> Path:
        """The picture of an image."""

    @abstractmethod
    def mask_file(self, name: str, split: str) -> Path | None:
        """The ground truth of an image, None in a set that has none."""

    def ground_truth(self, name: str, split: str, size: tuple[int, int] | None) -> np.ndarray | None:
        """Class of every pixel, uint8 [H, W], 255 ignored, None where there is no ground truth.

        `size` is the (width, height) of its image; None where that is not known.
        Raises UserError as `read_mask` does.
        """
        file = self.mask_file(name, split)
        return None if file is None else read_mask(file, size, len(self.class_names))
