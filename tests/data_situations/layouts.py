"""Rows 8, 9 and 14: read-only data sets, layouts as unzipped, classes of one's own."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image

from data_situations.lists import lines
from data_situations.place import LISTS, Answer, Place, Situation, asked
from fsr.data.coco import CocoSource
from fsr.data.prepare import main as prepare
from fsr.data.source import open_source
from fsr.data.voc import CLASS_NAMES, VocSource
from fsr.errors import UserError

# --- read-only data sets


def without_right(place: Place, folder: Path, ask: Callable[[], Answer]) -> Answer:
    """What is answered while nothing below a folder can be written: root could, so it is decided here."""

    def refused(tried_place: Path, flag: str) -> None:
        if tried_place.is_relative_to(folder):
            raise UserError(f"{flag} {tried_place} cannot be written: Read-only file system")

    with (
        mock.patch("fsr.data.list_places.check_folder", refused),
        mock.patch("fsr.data.prepare.check_folder", refused),
        mock.patch.dict(os.environ, {"XDG_CACHE_HOME": str(place.folder / "cache")}),
    ):
        return ask()


def read_only_coco(*flags: str) -> Callable[[Place], Answer]:
    """COCO without masks, which are drawn somewhere."""

    def ask(place: Place) -> Answer:
        shutil.rmtree(place.coco / "COCO/SegmentationClass")
        places = {"LISTS": place.folder / "lists", "MASKS": place.folder / "masks"}
        words = [places.get(flag, flag) for flag in flags]
        before = sorted(place.coco.rglob("*"))

        def prepare_and_read() -> Answer:
            answer = place.prepare_coco("--write_masks", *words)
            lists = places["LISTS"] if "LISTS" in flags else None
            source = CocoSource(place.coco, lists)
            for item in (*source.items("val"), *source.items("train")):
                split = item.name.split("_")[1].removesuffix("2014")
                ground_truth = source.ground_truth(item.name, split, (128, 128))
                assert ground_truth is not None and set(np.unique(ground_truth)) <= {0, 255, *item.classes}
            assert sorted(place.coco.rglob("*")) == before
            return answer

        return without_right(place, place.coco, prepare_and_read)

    return ask


def prepared_again_without_flags(place: Place) -> Answer:
    """The choice of a folder for masks is remembered: the second command need not name it."""
    first = read_only_coco("--mask_folder", "MASKS")(place)
    assert first.code == 0
    return without_right(place, place.coco, place.prepare_coco)


def read_only_voc(place: Place) -> Answer:
    """VOC on a shared disk, to which SBD's masks cannot be added."""
    elsewhere = place.folder / "SegmentationClassAug"
    (place.root / "SegmentationClassAug").rename(elsewhere)
    return without_right(place, place.voc, lambda: place.prepare("--mask_folder", elsewhere))


def sbd_is_found(place: Place) -> None:
    """What was remembered is where truth is read."""
    with mock.patch.dict(os.environ, {"XDG_CACHE_HOME": str(place.folder / "cache")}):
        source = VocSource(place.voc)
        name = source.items("train_aug")[0].name
        assert source.mask_file(name, "train_aug") == place.folder / f"SegmentationClassAug/{name}.png"


def read_only_with_lists(place: Place) -> Answer:
    """A read-only set that has lists."""
    place.prepare()
    return without_right(place, place.voc, place.prepare)


def damaged_record(place: Place) -> Answer:
    """The record beside the lists is damaged."""
    place.prepare()
    (place.root / "ImageSets/fsr/prepared.json").write_text('{"mask_folder": 7}')
    return place.train()


def trained_with_masks_elsewhere(place: Place) -> Answer:
    """Training evaluates on masks that the lists remember."""
    shutil.copytree(place.coco / "COCO/SegmentationClass/val2014", place.folder / "masks/val2014")
    shutil.rmtree(place.coco / "COCO/SegmentationClass")
    lists = ["--list_folder", place.folder / "lists"]
    assert place.prepare_coco("--mask_folder", place.folder / "masks", *lists).code == 0
    (place.folder / "lists/prepared.json").read_text()
    return place.train_coco(*lists)


def sbd_alone(place: Place) -> Answer:
    """VOC's own masks are not there at all."""
    shutil.rmtree(place.root / "SegmentationClass")
    return place.prepare()


def nested_augmented(place: Place) -> None:
    """As an archive of the folder unpacks in a folder of its name."""
    folder = place.root / "SegmentationClassAug"
    folder.rename(place.folder / "inner")
    folder.mkdir()
    (place.folder / "inner").rename(folder / folder.name)


def empty_augmented(place: Place) -> Answer:
    """The folder is there, and its archive was not unpacked."""
    shutil.rmtree(place.root / "SegmentationClassAug")
    (place.root / "SegmentationClassAug").mkdir()
    return place.prepare()


def flat_coco_masks(place: Place) -> Answer:
    """Masks of both years in one folder."""
    folder = place.coco / "COCO/SegmentationClass"
    for file in list(folder.glob("*/*.png")):
        file.rename(folder / file.name)
    for year in YEARS:
        (folder / year).rmdir()
    return place.prepare_coco()


def mask_folder_is_gone(place: Place) -> Answer:
    """The folder that the lists remember is gone."""
    shutil.copytree(place.coco / "COCO/SegmentationClass", place.folder / "masks")
    shutil.rmtree(place.coco / "COCO/SegmentationClass")
    assert place.prepare_coco("--mask_folder", place.folder / "masks").code == 0
    shutil.rmtree(place.folder / "masks")
    return place.prepare_coco()


# --- layouts


def without_augmented(place: Place) -> None:
    """Image-level training needs none."""
    shutil.rmtree(place.root / "SegmentationClassAug")


def upper_case(place: Place) -> None:
    """As cameras and Windows write them."""
    for folder, ending in (("JPEGImages", ".JPG"), ("SegmentationClass", ".PNG"), ("SegmentationClassAug", ".PNG")):
        for file in list((place.root / folder).iterdir()):
            file.rename(file.with_suffix(ending))


def jpeg_suffix(place: Place) -> None:
    """The long suffix."""
    for file in list((place.root / "JPEGImages").iterdir()):
        file.rename(file.with_suffix(".jpeg"))


def apple_double(place: Place) -> None:
    """As macOS's archiver leaves them."""
    for folder in ("JPEGImages", "SegmentationClass", "SegmentationClassAug", "Annotations", LISTS):
        for file in list((place.root / folder).iterdir()):
            file.with_name(f"._{file.name}").write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        ")
        (place.root / folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
        (place.root / folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")


def voc2007(place: Place) -> None:
    """The older set."""
    place.root.rename(place.root.with_name("VOC2007"))


def without_devkit(place: Place) -> None:
    """The folder above is left out."""
    root = place.root
    root.rename(place.voc / "VOC2012")


def devkit_itself(place: Place) -> None:
    """VOCdevkit's content lies in the data folder."""
    root = place.root
    for entry in list(root.iterdir()):
        entry.rename(place.voc / entry.name)
    shutil.rmtree(place.voc / "VOCdevkit")


def trainval_archive(place: Place) -> None:
    """In a folder of its own, as an archiver of a desktop unpacks it."""
    devkit = place.root.parent
    (place.voc / "VOCtrainval_11-May-2012").mkdir()
    devkit.rename(place.voc / "VOCtrainval_11-May-2012/VOCdevkit")


def sbd_as_released(place: Place) -> None:
    """SBD's own files, beside VOC as they are unzipped."""
    from scipy.io import savemat

    for file in list((place.root / "SegmentationClassAug").iterdir()):
        classes = np.array(Image.open(file))
        content = np.zeros((1, 1), [("Segmentation", object)])
        content[0, 0] = (np.where(classes == 255, 0, classes).astype(np.uint8),)
        savemat(file.with_suffix(".mat"), {"GTcls": content})
        file.unlink()
    beside = place.voc / "benchmark_RELEASE/dataset"
    beside.mkdir(parents=True)
    (place.root / "SegmentationClassAug").rename(beside / "cls")


def links(place: Place) -> None:
    """Folders that are links, as on clusters."""
    (place.folder / "elsewhere").mkdir()
    for folder in ("JPEGImages", "SegmentationClass", "Annotations"):
        shutil.move(place.root / folder, place.folder / "elsewhere" / folder)
        (place.root / folder).symlink_to(place.folder / "elsewhere" / folder)


def laid_out(change: Callable[[Place], None]) -> Callable[[Place], Answer]:
    """`prepare voc` of another layout."""

    def ask(place: Place) -> Answer:
        folder = place.voc
        change(place)
        return asked(prepare, "voc", folder)

    return ask


def coco_laid_out(change: Callable[[Path], object], given: str = "") -> Callable[[Place], Answer]:
    """`prepare coco` of another layout, which changes the folder COCO."""

    def ask(place: Place) -> Answer:
        folder = place.coco
        change(folder / "COCO")
        return asked(prepare, "coco", folder / given)

    return ask


def all_there(place: Place) -> None:
    """All images of train_aug have a picture and ground truth."""
    source = open_source("voc", place.folder / "voc", None, 21)
    for item in source.items("train_aug"):
        assert item.classes and source.image_file(item.name, "train_aug").exists()
        assert source.ground_truth(item.name, "train_aug", (128, 128)).any()


YEARS = ("train2014", "val2014")
NO_ENTRY = "which is missing"


# --- classes of one's own

OWN = ("crack", "rust", "hole", "dent", "leak", "stain", "burn", "dirt")


def own_classes(place: Place, text: str | None) -> Answer:
    """VOC's layout with classes of one's own, and `classes.txt` if given."""
    for file in (place.root / "Annotations").glob("*.xml"):
        content = file.read_text()
        for index, name in enumerate(OWN, 1):
            content = content.replace(f"<name>{CLASS_NAMES[index]}</name>", f"<name>{name}</name>")
        file.write_text(content)
    if text is not None:
        (place.root / "classes.txt").write_bytes(text.encode())
    return place.prepare()


def with_classes(text: str | None) -> Callable[[Place], Answer]:
    """The same as a situation."""
    return lambda place: own_classes(place, text)


def inferred_with_own_classes(place: Place) -> Answer:
    """The scores of an inference name these classes."""
    assert own_classes(place, lines(*OWN)).code == 0
    answer = place.infer("--report", "true")
    said = (place.folder / "out/scores.csv").read_text() + (place.folder / "out/report.html").read_text()
    assert "crack" in said and "aeroplane" not in said
    return answer


SITUATIONS = [
    Situation(8, "COCO, read-only", read_only_coco(), "where all commands of yours look for them"),
    Situation(8, "COCO, read-only, --list_folder", read_only_coco("--list_folder", "LISTS"), "masks written to"),
    Situation(8, "COCO, read-only, --mask_folder", read_only_coco("--mask_folder", "MASKS"), "/masks/train2014"),
    Situation(
        8, "COCO, read-only, both", read_only_coco("--list_folder", "LISTS", "--mask_folder", "MASKS"), "/masks/"
    ),
    Situation(8, "prepared again without flags", prepared_again_without_flags, "train: 60 images"),
    Situation(8, "VOC, read-only, SBD elsewhere", read_only_voc, "train_aug: 24 images", check=sbd_is_found),
    Situation(8, "a read-only set that has lists", read_only_with_lists, "(or give a --list_folder)", True),
    Situation(
        8,
        "--mask_folder that is not there",
        lambda place: place.prepare("--mask_folder", "/nowhere"),
        "--mask_folder /nowhere is no folder",
        True,
    ),
    Situation(8, "trained with masks elsewhere", trained_with_masks_elsewhere, "finished: segmentation mIoU"),
    Situation(9, "VOC: an empty SegmentationClassAug", empty_augmented, "holds no mask", True),
    Situation(9, "COCO: masks in one folder", flat_coco_masks, "train: 60 images"),
    Situation(9, "VOC: SBD's masks alone", sbd_alone, "train_aug: 24 images", check=all_there),
    Situation(8, "the lists' record is damaged", damaged_record, "prepared.json is damaged", True),
    Situation(8, "the folder of masks is gone", mask_folder_is_gone, "/masks/", True),
    *(
        Situation(9, f"VOC: {name}", laid_out(change), "train_aug: 24 images", check=all_there)
        for name, change in {
            "suffixes in upper case": upper_case,
            "suffix .jpeg": jpeg_suffix,
            "files of macOS and Windows": apple_double,
            "VOCdevkit/VOC2007": voc2007,
            "VOC2012 without VOCdevkit": without_devkit,
            "the set's own folder": devkit_itself,
            "SBD as unzipped": sbd_as_released,
            "folders that are links": links,
            "SegmentationClassAug in itself": nested_augmented,
        }.items()
    ),
    Situation(9, "VOC: some folders below", laid_out(trainval_archive), "looks like it: give that folder", True),
    Situation(9, "VOC without SegmentationClassAug", laid_out(without_augmented), "--train_set train trains on VOC's"),
    Situation(9, "VOC: an empty folder", lambda place: asked(prepare, "voc", place.folder), NO_ENTRY, True, slow=False),
    Situation(
        9, "COCO: an empty folder", lambda place: asked(prepare, "coco", place.folder), NO_ENTRY, True, slow=False
    ),
    Situation(
        9,
        "coco/train2014",
        coco_laid_out(
            lambda root: [
                *((root / "JPEGImages" / year).rename(root / year) for year in YEARS),
                root.rename(root.with_name("coco")),
            ]
        ),
        "train: 60 images",
    ),
    Situation(
        9,
        "coco/images/train2014",
        coco_laid_out(
            lambda root: [(root / "JPEGImages").rename(root / "images"), root.rename(root.with_name("coco"))]
        ),
        "train: 60 images",
    ),
    Situation(9, "the folder of COCO itself", coco_laid_out(lambda root: None, "COCO"), "train: 60 images"),
    Situation(
        9,
        "train2014 in the data folder",
        coco_laid_out(
            lambda root: [
                *((root / "JPEGImages" / year).rename(root.parent / year) for year in YEARS),
                (root / "annotations").rename(root.parent / "annotations"),
                (root / "SegmentationClass").rename(root.parent / "SegmentationClass"),
                shutil.rmtree(root),
            ]
        ),
        "train: 60 images",
    ),
    Situation(9, "COCO named VOC", lambda place: asked(prepare, "voc", place.coco), NO_ENTRY, True),
    Situation(9, "VOC named COCO", lambda place: asked(prepare, "coco", place.voc), NO_ENTRY, True),
    Situation(14, "no classes.txt", with_classes(None), "classes of your own ('burn', 'crack', 'dent'", True),
    Situation(14, "classes.txt", with_classes(lines(*OWN)), "train_aug: 24 images"),
    Situation(14, "with background first", with_classes(lines("background", *OWN)), "train_aug: 24 images"),
    Situation(
        14, "with a mark and ends of Windows", with_classes("\ufeff" + lines(*OWN, end="\r\n")), "train_aug: 24 im"
    ),
    Situation(14, "with a class twice", with_classes(lines(*OWN, "crack")), "must have each class once", True),
    Situation(14, "with a class less", with_classes(lines(*OWN[:-1])), "none of the data set's 7", True),
    Situation(14, "empty", with_classes(""), "must have 1 to 254 classes, got 0", True),
    Situation(14, "an inference's scores and page", inferred_with_own_classes, ""),
]
