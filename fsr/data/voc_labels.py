"""Lists and image-level labels of VOC 2012, derived from its own files."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from fsr.data.images import IGNORED, reason
from fsr.data.voc import CLASS_NAMES, VocSource
from fsr.errors import UserError
from fsr.regular_file import open_regular, read_regular


def voc_names(source: VocSource) -> dict[str, list[str]]:
    """Names of the images of every set that the files allow.

    `train` and `val` come from ImageSets/Segmentation, and so does `test` where VOC's test archive was unpacked too;
    `train_aug` is every image with an augmented mask that is not in `val`. Raises UserError if VOC's lists are missing.
    """
    folder = source.root / "ImageSets" / "Segmentation"
    names = {split: _read_names(folder / f"{split}.txt") for split in ("train", "val")}
    if source.augmented_masks.is_dir():
        masks = {file.stem for file in source.augmented_masks.glob("[!.]*.png")}
        names["train_aug"] = sorted(masks - set(names["val"]))
    if (folder / "test.txt").exists():
        names["test"] = _read_names(folder / "test.txt")
    return names


def voc_classes(source: VocSource, name: str, ground_truth: np.ndarray | None) -> tuple[int, ...]:
    """Classes of an image: of all objects in its XML, difficult ones too; those of its mask where it has no XML.

    Raises UserError if the XML is damaged or names a class that VOC has not.
    """
    file = source.root / "Annotations" / f"{name}.xml"
    try:
        with open_regular(file) as stream:
            objects = ElementTree.parse(stream).findall("object")
    except FileNotFoundError:
        if ground_truth is None:
            return ()
        return tuple(int(class_id) for class_id in np.unique(ground_truth) if class_id not in (0, IGNORED))
    except (OSError, ElementTree.ParseError) as error:
        raise UserError(f"annotation {file} cannot be read: {reason(error)}") from None
    found = {thing.findtext("name", "").strip() for thing in objects}
    unknown = sorted(found - set(CLASS_NAMES[1:]))
    if unknown:
        raise UserError(f"annotation {file} has an object of class {unknown[0]!r}, which is none of VOC's 20")
    return tuple(sorted(CLASS_NAMES.index(class_name) for class_name in found))


def _read_names(file: Path) -> list[str]:
    try:
        return read_regular(file).decode().split()
    except OSError as error:
        raise UserError(f"list {file} cannot be read: {error.strerror}") from None
