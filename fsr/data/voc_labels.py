"""Lists and image-level labels of VOC 2012, derived from its own files."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from fsr.data.images import IGNORED, reason
from fsr.data.lists import read_entries
from fsr.data.names import check_name, shown
from fsr.data.voc import CLASS_NAMES, VocSource
from fsr.errors import UserError
from fsr.regular_file import open_regular

_MOST_BYTES = 1 << 24  # VOC's have a few thousand; one that is cut here is damaged


def voc_names(source: VocSource) -> dict[str, list[str]]:
    """Names of the images of every set that the files allow.

    `train` and `val` come from ImageSets/Segmentation, and so does `test` where VOC's test archive was unpacked too;
    `train_aug` is every image with an augmented mask that is not in `val`. Raises UserError if VOC's lists are missing.
    """
    folder = source.root / "ImageSets" / "Segmentation"
    names = {split: _read_names(folder / f"{split}.txt") for split in ("train", "val")}
    if source.augmented_masks.is_dir():
        files = source.augmented_masks.glob("[!.]*.png")
        masks = {check_name(file.stem, f"a mask in {source.augmented_masks}") for file in files}
        names["train_aug"] = sorted(masks - set(names["val"]))
    if (folder / "test.txt").exists():
        names["test"] = _read_names(folder / "test.txt")
    return names


def voc_classes(source: VocSource, name: str, ground_truth: np.ndarray | None) -> tuple[int, ...]:
    """Classes of an image: of all objects in its XML, difficult ones too; those of its mask where it has no XML.

    Raises UserError if the XML is damaged, names a class that VOC has not, or no object where the mask holds some.
    """
    file = source.root / "Annotations" / f"{name}.xml"
    present = () if ground_truth is None else tuple(set(np.unique(ground_truth).tolist()) - {0, IGNORED})
    try:
        with open_regular(file) as stream:
            root = ElementTree.fromstring(_without_entities(stream.read(_MOST_BYTES)))
    except FileNotFoundError:
        return tuple(sorted(present))
    except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:  # the last two of unknown encodings
        raise UserError(f"annotation {file} cannot be read: {reason(error)}") from None
    if root.tag.rpartition("}")[2] != "annotation":
        raise UserError(f"annotation {file} must be of one `annotation`, got {shown(root.tag)}")
    found = {thing.findtext("{*}name", "").strip() for thing in root.findall("{*}object")}  # in any namespace
    if not found and present:
        raise UserError(f"annotation {file} has no object, but the mask of its image the class {min(present)}")
    unknown = sorted(found - set(CLASS_NAMES[1:]))
    if unknown:
        raise UserError(f"annotation {file} has an object of class {shown(unknown[0])}, which is none of VOC's 20")
    return tuple(sorted(CLASS_NAMES.index(class_name) for class_name in found))


def _without_entities(content: bytes) -> bytes:
    """An XML's content. VOC defines no entities, of which few can stand for many gigabytes; whoever does is refused."""
    if b"<!E" in content.replace(b"\0", b""):  # UTF-16, too
        raise ValueError("it defines entities")
    return content


def _read_names(file: Path) -> list[str]:
    try:
        entries = read_entries(file)
    except OSError as error:
        raise UserError(f"list {file} cannot be read: {error.strerror}") from None
    if not entries:
        raise UserError(f"list {file} is empty")
    for entry in entries:
        if entry.rest:
            raise UserError(f"{entry.place} must read `NAME` or `IMAGE MASK`, got {shown(entry.line)}")
    return [entry.name for entry in entries]
