"""What every set of images can be asked: which images there are, their pictures, and their ground truth if any."""

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
from PIL import Image

from fsr.data.images import read_image
from fsr.data.lists import Item


class ImageSet(ABC):
    """A set of images, which lists (`train`, `val`, …) may divide."""

    root: Path
    """The folder that its files lie in."""

    class_names: tuple[str, ...]
    """Background first."""

    @abstractmethod
    def items(self, split: str) -> list[Item]:
        """The images of a list, with the labels that they are known to have."""

    @abstractmethod
    def left_out(self, split: str) -> str | None:
        """A sentence about what lies there and was left out; None where nothing was."""

    @abstractmethod
    def has_ground_truth(self, split: str) -> bool:
        """Whether the images of a list have masks."""

    @abstractmethod
    def image_file(self, name: str, split: str) -> Path:
        """The file of an image's picture."""

    @abstractmethod
    def mask_file(self, name: str, split: str) -> Path | None:
        """The file of an image's ground truth; None in a list that has none."""

    @abstractmethod
    def ground_truth(self, name: str, split: str, size: tuple[int, int] | None) -> np.ndarray | None:
        """Class of every pixel, uint8 [H, W], 255 ignored; None where there is no ground truth.

        `size` is the (width, height) of its image; None where that is not known. Raises UserError for a bad file.
        """

    def picture(self, name: str, split: str) -> Image.Image:
        """The picture of an image as RGB. Raises UserError for a bad file."""
        return read_image(self.image_file(name, split))
