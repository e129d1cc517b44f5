"""The images of an inference. Imports no torch."""

from fsr.config import PRESETS
from fsr.data.source import Source, open_source
from fsr.inference.config import InferConfig


def open_images(config: InferConfig) -> Source:
    """The data set. Raises UserError if it is not there."""
    classes = config.num_classes or PRESETS[config.dataset]().num_classes
    return open_source(config.dataset, config.data_folder, config.list_folder, classes)
