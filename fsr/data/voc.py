"""PASCAL VOC 2012 on disk, and the synthetic set, which has the same layout and VOC's first eight class names."""

from pathlib import Path

from fsr.data.prepared import PreparedSet

CLASS_NAMES = (
    "background",
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


class VocSource(PreparedSet):
    """Where the files of VOC 2012 lie below `data_folder`."""

    def __init__(self, data_folder: Path, list_folder: Path | None = None, num_classes: int = len(CLASS_NAMES)) -> None:
        super().__init__("voc", "VOCdevkit/VOC2012", CLASS_NAMES, data_folder, list_folder, num_classes)

    def image_file(self, name: str, split: str) -> Path:
        """The picture of an image."""
        return self.root / "JPEGImages" / f"{name}.jpg"

    def mask_file(self, name: str, split: str) -> Path | None:
        """The ground truth of an image, an augmented mask (SBD) for training sets. None in the test set."""
        if not self.has_ground_truth(split):
            return None
        folder = "SegmentationClass"
        if split.startswith("train") and self.augmented_masks.is_dir():
            folder = self.augmented_masks.name
        return self.root / folder / f"{name}.png"

    @property
    def augmented_masks(self) -> Path:
        """Folder of the augmented masks of train and val; they have to be added to VOC by hand."""
        return self.root / "SegmentationClassAug"
