"""What `prepare` finds in the files of each image: on all processors, each file read and decoded by a process beside.

Standard error of these processes is theirs alone, for libjpeg prints there what it thinks of a picture.
"""

import gc
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from fsr.data.images import read_image
from fsr.data.jpeg_damage import catch_warnings, damage
from fsr.data.source import Source
from fsr.data.truth import drawn_in
from fsr.data.voc import VocSource
from fsr.data.voc_labels import voc_classes
from fsr.errors import UserError
from fsr.parent import end_with

_IMAGES_AT_A_TIME = 8
_source: Source
_drawn_here: bool


class Files(NamedTuple):
    """The files of one image."""

    name: str
    split: str
    image: Path
    mask: Path | None


@dataclass(frozen=True)
class Finding:
    """What was found in them."""

    size: tuple[int, int] | None
    """Width and height of the picture, None where it cannot be read."""
    classes: tuple[int, ...]
    """VOC's image-level labels; COCO's stand in its JSON."""
    drawn: tuple[int, ...] | None
    """Classes of its mask, but for background and ignored pixels; None without a mask."""
    ignored: float
    """Fraction of the mask's pixels."""
    by_colour: bool
    """Whether the mask's colours say so, not its values."""
    unknown: tuple[str, ...]
    """Classes in its XML that the data set has not."""
    problems: tuple[str, ...]
    """What is wrong, a sentence each."""


def examine(source: Source, images: Sequence[Files], drawn_here: bool) -> Iterator[Finding]:
    """Decode pictures and masks, and find their labels, in the order of `images`.

    Pictures that this program has just drawn are not looked at for damage that only libjpeg tells. Raises UserError if
    a process ends while it works, for want of memory or by a picture that its libraries do not bear.
    """
    if not drawn_here:
        import torchvision.io  # noqa: F401  # seconds, once for all processes
    return _found_by_processes(source, images, drawn_here)


def _found_by_processes(source: Source, images: Sequence[Files], drawn_here: bool) -> Iterator[Finding]:
    processes = min(len(os.sched_getaffinity(0)), 1 + len(images) // _IMAGES_AT_A_TIME)
    context = multiprocessing.get_context("fork")
    answered = 0
    with ProcessPoolExecutor(processes, context, _begin, (source, drawn_here, os.getpid())) as pool:
        try:
            for finding in pool.map(_examine, images, chunksize=_IMAGES_AT_A_TIME):
                yield finding
                answered += 1
        except BrokenProcessPool:
            raise UserError(
                f"a process that reads pictures was killed, perhaps for want of memory, at {images[answered].image} or "
                f"one of the {processes * _IMAGES_AT_A_TIME} images after it"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)  # else Ctrl-C waits for all that is queued


def _begin(source: Source, drawn_here: bool, parent: int) -> None:
    global _source, _drawn_here
    _source, _drawn_here = source, drawn_here
    end_with(parent)
    gc.freeze()  # a collection here would copy, page by page, what the parent holds
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's matter
    catch_warnings()


def _examine(files: Files) -> Finding:
    name, split, image, mask = files
    problems: list[str] = []
    classes: tuple[int, ...] = ()
    size = ground_truth = None
    try:
        size = read_image(image).size
        said = None if _drawn_here else damage(image)
        if said is not None:
            problems.append(f"image {image} is damaged: {said}")
    except UserError as error:
        problems.append(str(error))
    try:
        ground_truth = None if mask is None else _source.ground_truth(name, split, size)
    except UserError as error:
        problems.append(str(error))
    unknown: tuple[str, ...] = ()
    if isinstance(_source, VocSource):
        try:
            classes = voc_classes(_source, name, ground_truth)
        except UserError as error:
            problems.append(str(error))
        unknown = tuple(sorted(class_name for of, class_name in _source.unknown if of == name))
    if mask is None and not _source.is_annotated(name) and _source.has_ground_truth(split):
        problems.append(f"image {image} has neither annotation nor mask: nothing labels it")
    drawn, ignored = (None, 0.0) if ground_truth is None else drawn_in(ground_truth)
    return Finding(size, classes, drawn, ignored, mask in _source.mapped_by_colour, unknown, tuple(problems))
