"""Checks a data set, derives its lists and image-level labels: `fsr prepare voc DIR`.

Every picture and mask is decoded, and every bad file named. Nothing has to be downloaded beside the data set itself.
"""

if __name__ == "__main__":
    from fsr import beginning

    beginning.begin("prepare")

import math
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import tyro

from fsr.command import call
from fsr.config import PRESETS
from fsr.data.check_journal import CheckJournal
from fsr.data.coco import CocoSource
from fsr.data.coco_annotations import AnnotatedImage, draw_mask, only_boxes, read_annotations
from fsr.data.finding import Files, Finding, examine
from fsr.data.known_sets import check_apart, other_counts
from fsr.data.list_places import writable_list_folder
from fsr.data.lists import Item, write_list
from fsr.data.palette import palette_png
from fsr.data.record import write_record
from fsr.data.source import Source
from fsr.data.truth import Truth, contradictions, wrong_truth
from fsr.data.voc import VocSource
from fsr.data.voc_labels import voc_names
from fsr.errors import UserError, reports_user_errors
from fsr.files import write_atomically
from fsr.progress import with_progress
from fsr.writable import check_folder

T = TypeVar("T")
R = TypeVar("R")
Labels = Mapping[str, tuple[int, ...]]
"""Classes by image, of all lists."""


def prepare(
    dataset: tyro.conf.Positional[Literal["voc", "coco"]],
    data_folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")],
    list_folder: Path | None = None,
    mask_folder: Path | None = None,
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
        mask_folder: Where masks lie that the data set lacks, instead of in SegmentationClassAug (VOC) or
            SegmentationClass (COCO), and where --write_masks draws. The lists remember it: whoever reads them finds the
            masks.
        write_masks: COCO only: first write the masks that are missing, from the annotations; beside the lists where the
            data set is read-only.
        skip_bad: Leave images whose files are bad out of the lists, by name, instead of writing none. Training and
            inference say so.
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
    if mask_folder is not None:
        if write_masks:
            check_folder(mask_folder, "--mask_folder")
        elif not mask_folder.is_dir():
            raise UserError(f"--mask_folder {mask_folder} is no folder")
        source.mask_folder = mask_folder.absolute()
    if isinstance(source, VocSource):
        prepare_voc(source, skip_bad)
    else:
        prepare_coco(source, write_masks, skip_bad)


def prepare_voc(source: VocSource, skip_bad: bool = False, just_drawn: bool = False) -> None:
    """Write the lists train, val and, if the files are there, train_aug and test. Raises UserError for bad files."""
    names = voc_names(source)
    if "train_aug" not in names:
        print(f"no list train_aug: {source.no_augmented_list}")
    _write_checked_lists(source, names, None, (), skip_bad, just_drawn)


def prepare_coco(source: CocoSource, write_masks: bool, skip_bad: bool = False, just_drawn: bool = False) -> None:
    """Write the lists train and val: all images that have a label. Raises UserError for bad files.

    Masks of the training images are checked if their folder is there; no training needs them.
    """
    images = {split: read_annotations(source, split) for split in ("train", "val")}
    if write_masks:
        if source.mask_folder is None and not _can_be_written(source.root / "SegmentationClass"):
            source.mask_folder = source.list_folder / "SegmentationClass"
        for split in images:
            if only_boxes(images[split].values()):
                file = source.annotation_file(split)
                print(f"{split}: all outlines in {file} are boxes, and so are the masks that are drawn from them")
            _write_masks(source, split, images[split])
    classes = {name: image.classes for split in images.values() for name, image in split.items()}
    names = {split: sorted(images[split]) for split in images}
    del images  # outlines take gigabytes
    check_apart(names, source)
    without_masks = tuple(
        split for split in ("train",) if not _mask_file(source, names[split][0], split).parent.is_dir()
    )
    for split in without_masks:
        print(f"{split}: no masks (needed only for an evaluation on this set; --write_masks makes them)")
    for split in (split for split in names if split not in without_masks):
        source.recognise_masks(split, [Item(name, classes[name]) for name in names[split]])
        if source.layout[split] != next(iter(source.mask_layouts)):
            print(f"{split}: masks are read as {source.layout[split]}")
    _write_checked_lists(source, names, classes, without_masks, skip_bad, just_drawn)


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


def _write_checked_lists(
    source: Source,
    names: dict[str, list[str]],
    labels: Labels | None,
    without_masks: tuple[str, ...],
    skip_bad: bool,
    just_drawn: bool,
) -> None:
    """Decode all files and print what is bad. Write the lists if no file is bad, or is to be left out, and the masks
    may be right. Labels are those of each image's own files where none are given."""
    for sentence in other_counts(names, source):
        print(sentence)

    def files(name: str, split: str) -> Files:
        mask = None if split in without_masks else source.mask_file(name, split)
        if mask is not None and split.startswith("train") and not os.path.lexists(mask):
            mask = None  # training needs none
        return Files(name, split, source.image_file(name, split), mask)

    of_image = {(name, split): files(name, split) for split in names for name in names[split]}
    once = {(one.image, one.mask): one for one in reversed(of_image.values())}  # of all lists it is in
    of_image = {key: once[one.image, one.mask] for key, one in of_image.items()}
    wanted = list(dict.fromkeys(of_image.values()))
    journal = None if just_drawn else CheckJournal(source)
    findings = _findings(source, wanted, journal)
    bad = {one: found.problems for one, found in findings.items() if found.problems}
    problems = list(dict.fromkeys(text for one in wanted if one in bad for text in bad[one]))
    for text in problems:
        print(text)
    if problems and not skip_bad:
        own = ""
        unknown = [found.unknown for found in findings.values() if found.unknown]
        if isinstance(source, VocSource) and 2 * len(unknown) > len(wanted):  # not a mistake here and there
            own = f"; {source.no_such_classes(set(chain.from_iterable(unknown)))}"
        raise UserError(f"{len(problems)} bad files in {source.root}, named above; no list was written{own}")
    left_out: dict[str, dict[str, str]] = {}
    for split in names:
        left_out[split] = {name: bad[of_image[name, split]][0] for name in names[split] if of_image[name, split] in bad}
        if left_out[split]:
            print(f"{split}: {len(left_out[split])} images are left out: {', '.join(left_out[split])}")
            names[split] = [name for name in names[split] if name not in left_out[split]]
        if not names[split]:
            raise UserError(f"no image of {split} is left in {source.root}; no list was written")
    _say_small(source, {one.name: found for one, found in findings.items() if one not in bad})
    coloured = [one.mask for one, found in findings.items() if found.by_colour and one.mask]
    if coloured:
        print(f"{len(coloured)} masks are read by VOC's colours, not by their values, such as {min(coloured)}")
    for split in (split for split in names if split not in without_masks):
        of_split = {name: findings[of_image[name, split]] for name in names[split]}
        _judge_masks(source, split, of_split, labels)

    write_record(source.list_folder, source.mask_folder, {split: out for split, out in left_out.items() if out})
    for split in names:
        items = [Item(name, _labels(name, findings[of_image[name, split]], labels)) for name in names[split]]
        if split == "test":  # VOC has boxes for some test images, which are not for training
            items = [Item(item.name, ()) for item in items]
        file = source.list_folder / f"{split}.txt"
        write_list(file, items)
        print(f"{split}: {len(items)} images, {sum(len(item.classes) for item in items)} labels, {file}")
    if journal is not None:
        journal.remove()


def _findings(source: Source, wanted: list[Files], journal: CheckJournal | None) -> dict[Files, Finding]:
    """What is found about each image, or was before an interruption."""
    known = {} if journal is None else journal.known(wanted)
    missing = [files for files in wanted if files not in known]
    if known:
        print(f"{len(known)} of {len(wanted)} images were looked at before, and have not changed since")
    found = examine(source, missing, drawn_here=journal is None)
    if journal is not None:
        found = journal.noted(missing, found)
    progress = with_progress(found, len(missing), "checking images")
    known |= dict(zip(missing, progress, strict=True))
    return {files: known[files] for files in wanted}


def _labels(name: str, finding: Finding, labels: Labels | None) -> tuple[int, ...]:
    return finding.classes if labels is None else labels[name]


def _say_small(source: Source, images: Mapping[str, Finding]) -> None:
    """Name the images of which the network sees less than a patch at its smallest scale."""
    preset = PRESETS["synthetic" if source.is_synthetic else "coco" if isinstance(source, CocoSource) else "voc"]()
    least = math.ceil(preset.patch_size / min(1.0, *preset.cam_scales))
    small = [(min(found.size), name) for name, found in images.items() if found.size and min(found.size) < least]
    if small:
        side, name = min(small)
        print(
            f"{len(small)} images have a side below {least} pixels, a patch at the smallest scale, and are resized up "
            f"to it in the network; the smallest is {name} with {side}"
        )


def _judge_masks(source: Source, split: str, findings: Mapping[str, Finding], labels: Labels | None) -> None:
    """Say what is odd about the masks of a set. Raises UserError if they cannot be its ground truth."""
    truths = [
        Truth(name, _labels(name, found, labels) if source.is_annotated(name) else None, found.drawn, found.ignored)
        for name, found in findings.items()
        if found.drawn is not None
    ]
    missing = len(findings) - len(truths)
    if missing and source.has_ground_truth(split):
        print(f"{split}: {missing} images without masks (needed only for an evaluation on this set)")
    wrong = wrong_truth(split, truths, source.class_names)
    if wrong is not None:
        raise UserError(f"{wrong} ({source.root}); no list was written")
    sentence = contradictions(split, truths)
    if sentence is not None:
        print(sentence)


def _in_threads(work: Callable[[T], R], arguments: list[T], label: str) -> Iterator[R]:
    """`map(work, arguments)` with progress on all processors; Pillow compresses without Python's lock."""
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
