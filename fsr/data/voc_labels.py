"""Lists and image-level labels of VOC 2012, derived from its own files."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from fsr.data.images import IGNORED, reason
from fsr.data.known_sets import KNOWN_COUNTS, check_apart
from fsr.data.lists import read_entries
from fsr.data.names import check_name, shown
from fsr.data.prepared import MASK_ENDINGS
from fsr.data.voc import CLASS_NAMES, VocSource
from fsr.errors import UserError
from fsr.regular_file import open_regular

_MOST_BYTES = 1 << 24  # VOC's have a few thousand; one that is cut here is damaged


def voc_names(source: VocSource) -> dict[str, list[str]]:
    """Names of the images of every set that the files allow.

    `train` and `val` come from ImageSets/Segmentation, and so do `test` where VOC's test archive was unpacked too, and
    `train_aug` where somebody put its list there. Else `train_aug` is every image of `train` or with an augmented mask
    that is not in `val`. Raises UserError if VOC's lists are missing or contradict each other.
    """
    folder = source.root / "ImageSets" / "Segmentation"
    names = {split: _read_names(folder / f"{split}.txt") for split in ("train", "val")}
    check_apart(names, source)
    if source.augmented_list is not None:
        names["train_aug"] = _read_names(source.augmented_list)
    elif source.augmented_masks.is_dir():
        _check_whole(names, source, folder)
        masks = _names_in(source.augmented_masks)
        if not masks:
            raise UserError(f"{source.augmented_masks} holds no mask (PNG, or SBD's .mat); fill or remove it")
        names["train_aug"] = sorted((masks | set(names["train"])) - set(names["val"]))
    if (folder / "test.txt").exists():
        names["test"] = _read_names(folder / "test.txt")
    check_apart(names, source)
    return names


def _names_in(masks: Path) -> set[str]:
    files = (file for file in masks.glob("[!.]*") if file.suffix in (*MASK_ENDINGS, ".mat"))
    return {check_name(file.stem, f"a mask in {masks}") for file in files}


def _check_whole(names: dict[str, list[str]], source: VocSource, folder: Path) -> None:
    """Refuse to make train_aug by subtraction where images of val may be missing in its list.

    VOC's own masks, and `trainval`, are those of train and val alone.
    """
    if len(names["val"]) == KNOWN_COUNTS["VOC2012"]["val"]:
        return
    both = _names_in(source.own_masks)
    if (folder / "trainval.txt").exists():
        both |= set(_read_names(folder / "trainval.txt"))
    lacking = sorted(both.difference(names["train"], names["val"]))
    if lacking:
        raise UserError(
            f"the lists train.txt and val.txt in {folder} lack {len(lacking)} images of trainval.txt or "
            f"SegmentationClass, first {lacking[0]}, which may belong to val: train_aug is all other images with a "
            "mask, and would train on them; restore the lists, or put the list train_aug.txt beside them"
        )


def voc_classes(source: VocSource, name: str, ground_truth: np.ndarray | None) -> tuple[int, ...]:
    """Classes of an image: of all objects in its XML, difficult ones too; those of its mask where it has no XML.

    Raises UserError if the XML is damaged, names a class that VOC has not, or no object where the mask holds some.
    """
    file = source.annotation_file(name)
    drawn = () if ground_truth is None else tuple(sorted(set(np.unique(ground_truth).tolist()) - {0, IGNORED}))
    if not source.is_annotated(name):
        return drawn
    try:
        with open_regular(file) as stream:
            root = ElementTree.fromstring(_without_entities(stream.read(_MOST_BYTES)))
    except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:  # the last two of unknown encodings
        raise UserError(f"annotation {file} cannot be read: {reason(error)}") from None
    if root.tag.rpartition("}")[2] != "annotation":
        raise UserError(f"annotation {file} must be of one `annotation`, got {shown(root.tag)}")
    found = {thing.findtext("{*}name", "").strip() for thing in root.findall("{*}object")}  # in any namespace
    if not found and drawn:
        raise UserError(f"annotation {file} has no object, but the mask of its image the class {min(drawn)}")
    unknown = sorted(found - set(source.class_names[1:]))
    if unknown:
        source.unknown.update((name, class_name) for class_name in unknown)
        whose = "VOC's" if source.class_names == CLASS_NAMES else "the data set's"
        raise UserError(
            f"annotation {file} has an object of class {shown(unknown[0])}, which is none of {whose} "
            f"{len(source.class_names) - 1}"
        )
    return tuple(sorted(source.class_names.index(class_name) for class_name in found))


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
