"""The data set that a configuration names."""

from typing import TypeAlias

from fsr.config import TrainConfig
from fsr.data.coco import CocoSource
from fsr.data.voc import VocSource
from fsr.errors import UserError

Source: TypeAlias = VocSource | CocoSource


def open_source(config: TrainConfig) -> Source:
    """The files of `config.dataset` below `config.data_folder`. Raises UserError if they are not there."""
    folder = config.data_folder
    if config.dataset == "synthetic" and not ((folder / "VOCdevkit").is_dir() or (folder / "JPEGImages").is_dir()):
        raise UserError(f"{folder} holds no synthetic set; make it with `python -m fsr.data.synthetic {folder}`")
    kind = CocoSource if config.dataset == "coco" else VocSource
    return kind(config.data_folder, config.list_folder, config.num_classes)
