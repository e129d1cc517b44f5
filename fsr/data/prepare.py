"""Checks a data set, derives its lists and image-level labels: `fsr prepare voc DIR`.

Every picture and mask is decoded, and every bad file named. Nothing has to be downloaded beside the data set itself.
"""

if __name__ == "__main__":
    from fsr import beginning

    beginning.begin("prepare")

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import numpy as np
import tyro

from fsr.command import call
from fsr.config import PRESETS
from fsr.data.coco import CocoSource
from fsr.data.coco_annotations import AnnotatedImage, draw_mask, read_annotations
from fsr.data.images import read_image
from fsr.data.jpeg_damage import damages
from fsr.data.known_sets import check_apart, other_counts
from fsr.data.list_places import writable_list_folder
from fsr.data.lists import Item, write_list
from fsr.data.palette import palette_png
from fsr.data.source import Source
from fsr.data.truth import Truth, contradictions, truth_of, wrong_truth
from fsr.data.voc import VocSource
from fsr.data.voc_labels import voc_classes, voc_names
from fsr.errors import UserError, reports_user_errors
from fsr.files import write_atomically
from fsr.progress import with_progress
from fsr.writable import check_folder

T = TypeVar("T")
R = TypeVar("R")
ClassesOf = Callable[[str, np.ndarray | None], tuple[int, ...]]


def prepare(
    dataset: tyro.conf.Positional[Literal["voc", "coco"]],
    data_folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")],
    list_folder: Path | None = None,
    write_masks: bool = False,
    skip_bad: bool = False,
) -> None:
    """Check every file of a data set and write its lists with image-level labels.

    Examples:
        voc DIR
        coco DIR --write_masks --list_folder lists

    Args:
        dataset: Layout of the data set; the synthetic set has either.
        data_folder: Folder that holds VOCdevkit/VOC2012 or COCO.
        list_folder: Where to write the lists; by default ImageSets/fsr inside the data set, or a folder in the cache
            that is named where that is read-only.
        write_masks: COCO only: first write the masks that are missing, from the annotations; beside the lists where the
            data set is read-only.
        skip_bad: Leave images whose files are bad out of the lists, by name, instead of writing none.
    """
    if dataset == "voc":
        if write_masks:
            raise UserError("--write_masks is for coco: VOC comes with masks")
        source: VocSource | CocoSource = VocSource(data_folder, list_folder)
    else:
        source = CocoSource(data_folder, list_folder)
    if list_folder is None:
        source.list_folder = writable_list_folder(source.root)
    else:
        check_folder(list_folder, "--list_folder")
    if isinstance(source, VocSource):
        prepare_voc(source, skip_bad)
    else:
        prepare_coco(source, write_masks, skip_bad)


def prepare_voc(source: VocSource, skip_bad: bool = False, just_drawn: bool = False) -> None:
    """Write the lists train, val and, if the files are there, train_aug and test. Raises UserError for bad files."""
    names = voc_names(source)
    if "train_aug" not in names:
        print(f"no list train_aug: {source.no_augmented_list}")
    _write_checked_lists(source, names, partial(voc_classes, source), (), skip_bad, just_drawn)


def prepare_coco(source: CocoSource, write_masks: bool, skip_bad: bool = False, just_drawn: bool = False) -> None:
    """Write the lists train and val: all images that have a label. Raises UserError for bad files.

    Masks of the training images are checked if their folder is there; no training needs them.
    """
    images = {split: read_annotations(source, split) for split in ("train", "val")}
    if write_masks:
        source.draws_beside_lists = not _can_be_written(source.root / "SegmentationClass")
        for split in images:
            _write_masks(source, split, images[split])
    classes = {name: image.classes for split in images.values() for name, image in split.items()}
    names = {split: sorted(images[split]) for split in images}
    check_apart(names, source)
    without_masks = tuple(
        split for split in ("train",) if not _mask_file(source, names[split][0], split).parent.is_dir()
    )
    for split in without_masks:
        print(f"{split}: no masks (needed only for an evaluation on this set; --write_masks makes them)")
    for split in images.keys() - without_masks:
        source.recognise_masks(split, [Item(name, classes[name]) for name in names[split]])
    _write_checked_lists(source, names, lambda name, _: classes[name], without_masks, skip_bad, just_drawn)


def _can_be_written(folder: Path) -> bool:
    try:
        check_folder(folder, "the masks'")
    except UserError:
        return False
    return True


def _mask_file(source: CocoSource, name: str, split: str) -> Path:
    file = source.mask_file(name, split)
    assert file is not None, f"{split} has no masks"
    return file


def _write_masks(source: CocoSource, split: str, images: dict[str, AnnotatedImage]) -> None:
    missing = [name for name in images if not os.path.lexists(_mask_file(source, name, split))]

    def write(name: str) -> None:
        write_atomically(_mask_file(source, name, split), palette_png(draw_mask(images[name])))

    for _ in _in_threads(write, missing, f"writing masks of {split}"):
        pass
    place = f" to {_mask_file(source, missing[0], split).parent}" if missing else ""
    print(f"{split}: {len(missing)} masks written{place}, {len(images) - len(missing)} existed already")


@dataclass(frozen=True)
class _Finding:
    size: tuple[int, int] | None
    classes: tuple[int, ...]
    truth: Truth | None
    problems: tuple[str, ...]


def _write_checked_lists(
    source: Source,
    names: dict[str, list[str]],
    classes_of: ClassesOf,
    without_masks: tuple[str, ...],
    skip_bad: bool,
    just_drawn: bool,
) -> None:
    """Decode all files and print what is bad. Write the lists if no file is bad, or is to be left out, and the masks
    may be right. Pictures that were `just_drawn` are not looked at for damage that only libjpeg tells."""
    for sentence in other_counts(names, source):
        print(sentence)

    def files(name: str, split: str) -> tuple[Path, Path | None]:
        mask_file = None if split in without_masks else source.mask_file(name, split)
        if mask_file is not None and split.startswith("train") and not os.path.lexists(mask_file):
            mask_file = None  # training needs none
        return source.image_file(name, split), mask_file

    # An image is in several lists, often with the same mask.
    files_of = {(name, split): files(name, split) for split in names for name in names[split]}
    images = {pair: place for place, pair in files_of.items()}

    def examine(pair: tuple[Path, Path | None]) -> _Finding:
        return _examine(source, *images[pair], pair[1] is not None, classes_of)

    progress = _in_threads(examine, list(images), "checking images")
    findings = dict(zip(images, progress, strict=True))
    damaged = {} if just_drawn else _damages([pair[0] for pair, found in findings.items() if found.size])
    bad = {
        pair: [*found.problems, *damaged.get(pair[0], ())]
        for pair, found in findings.items()
        if found.problems or pair[0] in damaged
    }
    problems = list(dict.fromkeys(text for texts in bad.values() for text in texts))
    for text in problems:
        print(text)
    if problems and not skip_bad:
        own = ""
        if isinstance(source, VocSource) and 2 * len({name for name, _ in source.unknown}) > len(images):
            own = f"; {source.no_such_classes()}"  # not a mistake here and there
        raise UserError(f"{len(problems)} bad files in {source.root}, named above; no list was written{own}")
    for split in names:
        left_out = [name for name in names[split] if files_of[name, split] in bad]
        if left_out:
            print(f"{split}: {len(left_out)} images are left out: {', '.join(left_out)}")
            names[split] = [name for name in names[split] if files_of[name, split] not in bad]
        if not names[split]:
            raise UserError(f"no image of {split} is left in {source.root}; no list was written")
    _say_small(source, [(images[pair][0], found) for pair, found in findings.items() if pair not in bad])
    with_masks = [split for split in names if split not in without_masks]
    _judge_masks(source, {split: [findings[files_of[name, split]] for name in names[split]] for split in with_masks})

    for split in names:
        labelled = split != "test"  # VOC has boxes for some test images, which are not for training
        items = [Item(name, findings[files_of[name, split]].classes if labelled else ()) for name in names[split]]
        file = source.list_folder / f"{split}.txt"
        write_list(file, items)
        print(f"{split}: {len(items)} images, {sum(len(item.classes) for item in items)} labels, {file}")


def _damages(images: list[Path]) -> dict[Path, list[str]]:
    """What is wrong with each picture that decodes, but to wrong pixels."""
    files = list(dict.fromkeys(images))
    said = zip(files, damages(files), strict=True) if files else ()
    return {file: [f"image {file} is damaged: {text}"] for file, text in said if text is not None}


def _say_small(source: Source, images: list[tuple[str, _Finding]]) -> None:
    """Name the images of which the network sees less than a patch at its smallest scale."""
    preset = PRESETS["synthetic" if source.is_synthetic else "coco" if isinstance(source, CocoSource) else "voc"]()
    least = math.ceil(preset.patch_size / min(1.0, *preset.cam_scales))
    small = [(min(found.size), name) for name, found in images if found.size and min(found.size) < least]
    if small:
        side, name = min(small)
        print(
            f"{len(small)} images have a side below {least} pixels, a patch at the smallest scale, and are resized up "
            f"to it in the network; the smallest is {name} with {side}"
        )


def _judge_masks(source: Source, findings: dict[str, list[_Finding]]) -> None:
    """Say what is odd about the masks of each set. Raises UserError if they cannot be its ground truth."""
    if source.mapped_by_colour:
        first = min(source.mapped_by_colour)
        print(f"{len(source.mapped_by_colour)} masks are read by VOC's colours, not by their values, such as {first}")
    for split, of_split in findings.items():
        truths = [finding.truth for finding in of_split if finding.truth is not None]
        missing = len(of_split) - len(truths)
        if missing and source.has_ground_truth(split):
            print(f"{split}: {missing} images without masks (needed only for an evaluation on this set)")
        wrong = wrong_truth(split, truths, source.class_names)
        if wrong is not None:
            raise UserError(f"{wrong} ({source.root}); no list was written")
        sentence = contradictions(split, truths)
        if sentence is not None:
            print(sentence)


def _examine(source: Source, name: str, split: str, with_mask: bool, classes_of: ClassesOf) -> _Finding:
    """Decode one image and its mask, if it has one, and find its labels."""
    problems: list[str] = []
    classes: tuple[int, ...] = ()
    size = ground_truth = truth = None
    try:
        size = read_image(source.image_file(name, split)).size
    except UserError as error:
        problems.append(str(error))
    try:
        ground_truth = source.ground_truth(name, split, size) if with_mask else None
    except UserError as error:
        problems.append(str(error))
    try:
        classes = classes_of(name, ground_truth)
    except UserError as error:
        problems.append(str(error))
    annotated = source.is_annotated(name)
    if not with_mask and not annotated and source.has_ground_truth(split):
        problems.append(f"image {source.image_file(name, split)} has neither annotation nor mask: nothing labels it")
    if ground_truth is not None:
        truth = truth_of(name, classes if annotated else None, ground_truth)
    return _Finding(size, classes, truth, tuple(problems))


def _in_threads(work: Callable[[T], R], arguments: list[T], label: str) -> Iterator[R]:
    """`map(work, arguments)` with progress on all processors; Pillow decodes and compresses without Python's lock."""
    threads = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
    try:
        yield from with_progress(threads.map(work, arguments), len(arguments), label)
    finally:
        threads.shutdown(cancel_futures=True)  # else Ctrl-C waits for all that is queued


@reports_user_errors
def main(arguments: list[str] | None = None) -> None:
    """The command line; `arguments` are the process's own by default."""
    call(prepare, "prepare", arguments)


if __name__ == "__main__":
    main()
