"""A quick look at all files before a run."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Semaphore

from fsr.data.image_set import ImageSet
from fsr.data.images import END_OF_IMAGE, open_picture, read_image, refusing
from fsr.data.lists import Item
from fsr.errors import UserError
from fsr.heartbeat import HEARTBEAT
from fsr.regular_file import open_regular

_DECODING = Semaphore(4)  # whole pictures in memory; the other threads wait for a file server
_TRAILING_BYTES = 64  # that cameras and editors may leave behind the end of a picture


def check_files(source: ImageSet, split: str, items: list[Item], with_masks: bool) -> None:
    """Look at every file that a run will read, without decoding it.

    A picture must have a header and an end, a mask the same size and right checksums. Raises UserError that names the
    first bad file in the order of `items` and counts the others.
    """

    def problem(item: Item) -> UserError | None:
        try:
            size = _check_image(source.image_file(item.name, split))
            mask_file = source.mask_file(item.name, split) if with_masks else None
            if mask_file is not None and mask_file.suffix != ".mat":  # which SciPy alone can look at
                _check_mask(mask_file, size)
        except UserError as error:
            return error
        return None

    with ThreadPoolExecutor(16) as threads:
        problems = []
        for error in threads.map(problem, items):
            HEARTBEAT.beat("checking files")
            problems += [] if error is None else [error]
    if problems:
        others = f" (and {len(problems) - 1} more bad files in {split})" if len(problems) > 1 else ""
        raise type(problems[0])(f"{problems[0]}{others}")


def _check_image(file: Path) -> tuple[int, int]:
    """Width and height of a picture. Raises UserError if it is missing, cut or no picture."""
    with refusing(file, "image"), open_regular(file) as stream:
        size = open_picture(stream, "image").size
        length = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, length - _TRAILING_BYTES))
        tail = stream.read()
    if END_OF_IMAGE not in tail:
        with _DECODING:
            read_image(file)  # a PNG, or long trailing data, which is harmless: decoding it is the judge
    return size


def _check_mask(file: Path, image_size: tuple[int, int]) -> None:
    with refusing(file, "mask"), open_regular(file) as stream:
        width, height = open_picture(stream, "mask").size
    if (width, height) != image_size:
        raise UserError(f"mask {file} is {width} x {height} pixels, its image {image_size[0]} x {image_size[1]}")
