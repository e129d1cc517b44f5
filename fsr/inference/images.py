"""The images of an inference. Imports no torch."""

from fsr.data.plain_pictures import PlainPictures
from fsr.data.source import Source, open_source
from fsr.inference.config import InferConfig


def open_images(config: InferConfig) -> Source | PlainPictures:
    """The data set, or the pictures. Raises UserError if they are not there."""
    if config.dataset == "images":
        return PlainPictures(config.data_folder, config.pictures, config.results_folder)
    return open_source(config.dataset, config.data_folder, config.list_folder, config.num_classes)
