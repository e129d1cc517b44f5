"""Images, image-level labels and views of VOC 2012, COCO 2014 and the synthetic set.

The names below are imported when they are first used, so that `prepare` and `synthetic` start without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fsr.data.check import check_files
    from fsr.data.lists import Item
    from fsr.data.loaders import evaluation_images, train_loader
    from fsr.data.palette import voc_palette
    from fsr.data.source import Source, open_source
    from fsr.data.transforms import IMAGENET_MEAN, IMAGENET_STD, normalise

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Item",
    "Source",
    "check_files",
    "evaluation_images",
    "normalise",
    "open_source",
    "train_loader",
    "voc_palette",
]

_MODULE_OF = {
    "IMAGENET_MEAN": "transforms",
    "IMAGENET_STD": "transforms",
    "Item": "lists",
    "Source": "source",
    "check_files": "check",
    "evaluation_images": "loaders",
    "normalise": "transforms",
    "open_source": "source",
    "train_loader": "loaders",
    "voc_palette": "palette",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
