"""PASCAL VOC 2012 on disk, and the synthetic set, which has the same layout and VOC's first eight class names."""

from pathlib import Path

from fsr.data.lists import Item, read_list
from fsr.errors import UserError

CLASS_NAMES = (
    "background",
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


class VocSource:
    """Where the files of VOC 2012 lie below `data_folder`.

    Raises UserError if the data set is not there or has fewer classes than `num_classes` (background included).
    """

    def __init__(self, data_folder: Path, list_folder: Path | None = None, num_classes: int = len(CLASS_NAMES)) -> None:
        self.root = data_folder / "VOCdevkit" / "VOC2012"
        if not self.root.is_dir():
            raise UserError(f"data folder {data_folder} must hold VOCdevkit/VOC2012, which is missing")
        if num_classes > len(CLASS_NAMES):
            raise UserError(f"num_classes must be at most {len(CLASS_NAMES)} for VOC, got {num_classes}")
        self.list_folder = list_folder or self.root / "ImageSets" / "fsr"
        self.class_names = CLASS_NAMES[:num_classes]
        self.remedy = f"python -m fsr.data.prepare voc {data_folder}"
        if list_folder is not None:
            self.remedy += f" --list_folder {list_folder}"

    def items(self, split: str) -> list[Item]:
        """The images of the prepared list `split`. Raises UserError if it is missing or damaged."""
        return read_list(self.list_folder / f"{split}.txt", len(self.class_names), self.remedy)

    def image_file(self, name: str, split: str) -> Path:
        """The picture of an image."""
        return self.root / "JPEGImages" / f"{name}.jpg"

    def mask_file(self, name: str, split: str) -> Path | None:
        """The truth of an image: an augmented mask (SBD) for training sets; None in the test set, which has none."""
        if split.startswith("test"):
            return None
        folder = "SegmentationClass"
        if split.startswith("train") and self.augmented_masks.is_dir():
            folder = self.augmented_masks.name
        return self.root / folder / f"{name}.png"

    @property
    def augmented_masks(self) -> Path:
        """Folder of the augmented masks of train and val; they have to be added to VOC by hand."""
        return self.root / "SegmentationClassAug"
