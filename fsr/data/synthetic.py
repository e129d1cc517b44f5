"""Makes the synthetic data set: `fsr synthetic DIR`.

It lies on disk as VOC 2012 or COCO 2014 do, with the names of its classes in classes.txt, so that everything that reads
those reads it unchanged: 8 in the segmentation split, 20 in the pretraining split (fsr/data/looks.py). Equal seeds give
equal bytes (with equal versions of NumPy and Pillow).
"""

if __name__ == "__main__":
    from fsr import beginning

    beginning.begin("synthetic")

import json
import shutil
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from typing_extensions import NotRequired, TypedDict

from fsr.bounds import COUNT, SEED, check_bounds
from fsr.command import call
from fsr.data import looks
from fsr.data.coco import CocoSource
from fsr.data.prepare import prepare_coco, prepare_voc
from fsr.data.scenes import draw_scene
from fsr.data.synthetic_files import CocoWriter, VocWriter
from fsr.data.synthetic_names import PRETRAINING_NAMES, SEGMENTATION_NAMES
from fsr.data.voc import VocSource
from fsr.errors import UserError, reports_user_errors
from fsr.files import naming, write_atomically
from fsr.json_file import read_json
from fsr.lock import FileLock
from fsr.progress import with_progress
from fsr.writable import check_folder

# Counted up when scenes change, so that an old set is not taken for a new one.
_DESIGN = 1
_SPLITS = {
    "segmentation": (looks.SEGMENTATION, SEGMENTATION_NAMES),
    "pretraining": (looks.PRETRAINING, PRETRAINING_NAMES),
}


def synthesise(
    data_folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")],
    format: Literal["voc", "coco"] = "voc",
    images: Annotated[int, COUNT] = 2000,
    seed: Annotated[int, SEED] = 0,
    split: Literal["segmentation", "pretraining"] = "segmentation",
) -> None:
    """Make a data set of 128-pixel pictures, its ground truth and its lists.

    Examples:
        data/synthetic
        data/tiny --format coco --images 24 --seed 1
        data/pretraining --split pretraining --images 20000

    Args:
        data_folder: Folder that will hold VOCdevkit/VOC2012 or COCO.
        format: Layout on disk.
        images: Training images; a tenth as many, at least 2, are added for validation.
        seed: Equal seeds give equal files.
        split: segmentation has the 8 classes of the preset synthetic; pretraining has 20 others, of other shapes,
            patterns and hues, for an encoder that is to be trained before (fsr pretrain).
    """
    check_bounds(synthesise, {"images": images, "seed": seed}, "--")
    root = data_folder / ("VOCdevkit/VOC2012" if format == "voc" else "COCO")
    settings: dict[str, Any] = {"images": images, "seed": seed, "design": _DESIGN}
    settings |= {} if split == "segmentation" else {"split": split}
    if _is_finished(root, settings):
        print(f"{root} already holds this set")
        return

    check_folder(root, "DIR")
    lock = FileLock(root.with_name(f".{root.name}.lock"))  # beside it, for what a killed run left is removed
    lock.take(f"making {root}")
    try:
        if not _is_finished(root, settings):  # else another process has just made it
            with naming(root):
                _make(data_folder, root, format, settings)
    finally:
        lock.release()


def _make(data_folder: Path, root: Path, format: Literal["voc", "coco"], settings: dict[str, Any]) -> None:
    """Make the set in `root`; what a killed run left unfinished there is removed first. The lock must be held."""
    if root.exists() and any(root.iterdir()):
        shutil.rmtree(root)
    images, seed = settings["images"], settings["seed"]
    # The marker comes first unfinished, so that only what was begun here is ever removed, and last finished.
    _write_marker(root, settings | {"finished": False})
    split, class_names = _SPLITS[settings.get("split", "segmentation")]
    writer = VocWriter(root, class_names) if format == "voc" else CocoWriter(root, class_names)
    total = images + max(2, images // 10)
    for index in with_progress(range(total), total, "drawing images"):
        writer.write(draw_scene(seed, index, split), index, "train" if index < images else "val")
    writer.finish()
    if format == "voc":
        prepare_voc(VocSource(data_folder), just_drawn=True)
    else:
        prepare_coco(CocoSource(data_folder), write_masks=False, just_drawn=True)
    _write_marker(root, settings | {"finished": True})


class _Marker(TypedDict):
    images: int
    seed: int
    design: int
    finished: bool
    split: NotRequired[Literal["pretraining"]]


def _is_finished(root: Path, settings: dict[str, Any]) -> bool:
    """Whether `root` holds the whole set; not so if a killed run left it unfinished.

    Raises UserError if it holds anything else, or its marker is damaged.
    """
    if not root.exists():
        return False
    marker = root / "synthetic.json"
    if not marker.exists():
        if any(root.iterdir()):
            raise UserError(f"{root} holds a data set that is not synthetic; choose another folder")
        return False
    marked = read_json(marker, _Marker)
    if not marked["finished"]:
        return False
    found = {name: value for name, value in marked.items() if name != "finished"}
    if found != settings:
        raise UserError(
            f"{root} holds a synthetic set of {_in_words(found)}, not {_in_words(settings)}; "
            "choose another folder or remove it"
        )
    return True


def _in_words(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def _write_marker(root: Path, content: dict[str, Any]) -> None:
    write_atomically(root / "synthetic.json", (json.dumps(content) + "\n").encode())


@reports_user_errors
def main(arguments: list[str] | None = None) -> None:
    """The command line; `arguments` are the process's own by default."""
    call(synthesise, "synthetic", arguments)


if __name__ == "__main__":
    main()
