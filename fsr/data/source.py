"""Opens a data set by its name."""

import dataclasses
from pathlib import Path
from typing import Literal, TypeAlias

from fsr.config import PRESETS, TrainConfig
from fsr.data import coco, voc
from fsr.data.coco import CocoSource
from fsr.data.own_classes import own_classes
from fsr.data.voc import VocSource
from fsr.errors import UnreadableError
from fsr.next_command import next_command

Dataset: TypeAlias = Literal["voc", "coco", "synthetic"]
Source: TypeAlias = VocSource | CocoSource
_KINDS: dict[Dataset, type[VocSource] | type[CocoSource]] = {
    "voc": VocSource,
    "coco": CocoSource,
    "synthetic": VocSource,
}


def open_source(dataset: Dataset, data_folder: Path, list_folder: Path | None, num_classes: int | None) -> Source:
    """The files of a data set below `data_folder`; its lists are in `list_folder`, by default inside the data set.

    `num_classes` counts the background; None takes those of the set's classes.txt, else of the preset. Raises UserError
    if the data set is not there or has fewer classes.
    """
    has_images = (data_folder / "VOCdevkit").is_dir() or (data_folder / "JPEGImages").is_dir()
    if dataset == "synthetic" and not has_images:
        command = next_command("synthetic", data_folder)
        raise UnreadableError(f"data folder {data_folder} holds no synthetic set; make it with `{command}`")
    if num_classes is None:
        num_classes = own_class_count(dataset, data_folder) or PRESETS[dataset]().num_classes
    return _KINDS[dataset](data_folder, list_folder, num_classes)


def class_names_of(config: TrainConfig) -> tuple[str, ...]:
    """The classes of a network whose checkpoint, of an earlier version, does not name them: those of its data set."""
    usual = coco.CLASS_NAMES if config.dataset == "coco" else voc.CLASS_NAMES
    known = usual[: config.num_classes]
    return (*known, *(f"class {class_id}" for class_id in range(len(known), config.num_classes)))


def own_class_count(dataset: Dataset, data_folder: Path) -> int | None:
    """Classes, background included, that the classes.txt of a data set names; None without one, or without the set."""
    root = _KINDS[dataset].root_in(data_folder)
    own = None if root is None else own_classes(root, data_folder)
    return None if own is None else len(own.names)


def with_own_classes(config: TrainConfig) -> TrainConfig:
    """A configuration for which nobody said how many classes there are: as many as the data set's classes.txt names."""
    own = own_class_count(config.dataset, config.data_folder)
    return config if own is None else dataclasses.replace(config, num_classes=own)
