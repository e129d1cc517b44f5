"""Opens a data set by its name."""

from pathlib import Path
from typing import Literal, TypeAlias

from fsr.data.coco import CocoSource
from fsr.data.voc import VocSource
from fsr.errors import UnreadableError
from fsr.next_command import next_command

Dataset: TypeAlias = Literal["voc", "coco", "synthetic"]
Source: TypeAlias = VocSource | CocoSource


def open_source(dataset: Dataset, data_folder: Path, list_folder: Path | None, num_classes: int) -> Source:
    """The files of a data set below `data_folder`; its lists are in `list_folder`, by default inside the data set.

    `num_classes` counts the background. Raises UserError if the data set is not there or has fewer classes.
    """
    has_images = (data_folder / "VOCdevkit").is_dir() or (data_folder / "JPEGImages").is_dir()
    if dataset == "synthetic" and not has_images:
        command = next_command("synthetic", data_folder)
        raise UnreadableError(f"data folder {data_folder} holds no synthetic set; make it with `{command}`")
    kind = CocoSource if dataset == "coco" else VocSource
    return kind(data_folder, list_folder, num_classes)
