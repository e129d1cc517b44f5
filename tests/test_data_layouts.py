"""VOC and COCO as they are unzipped, on disks that cannot be written, and with classes of one's own."""

import shutil
import sys

import numpy as np
import pytest
from data_answers import LISTS, answer, listed, root_of
from PIL import Image

from fsr.data.coco import CocoSource
from fsr.data.list_places import writable_list_folder
from fsr.data.prepare import main
from fsr.data.source import open_source
from fsr.data.voc import CLASS_NAMES, VocSource
from fsr.errors import UserError


def without_augmented(root):
    shutil.rmtree(root / "SegmentationClassAug")


def without_training_masks(root):
    without_augmented(root)
    for name in listed(root, "train"):
        (root / f"SegmentationClass/{name}.png").unlink()


def upper_case(root):
    for place, ending in (("JPEGImages", ".JPG"), ("SegmentationClass", ".PNG"), ("SegmentationClassAug", ".PNG")):
        for file in list((root / place).iterdir()):
            file.rename(file.with_suffix(ending))


def apple_double(root):
    for place in ("JPEGImages", "SegmentationClass", "SegmentationClassAug", "Annotations", LISTS):
        for file in list((root / place).iterdir()):
            file.with_name(f"._{file.name}").write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        ")


def voc2007(root):
    root.rename(root.with_name("VOC2007"))


def without_devkit(root):
    root.rename(root.parent.parent / "VOC2012")


def matlab(root):
    from scipy.io import savemat

    for file in list((root / "SegmentationClassAug").iterdir()):
        classes = np.array(Image.open(file))
        content = np.zeros((1, 1), [("Segmentation", object)])
        content[0, 0] = (np.where(classes == 255, 0, classes).astype(np.uint8),)
        savemat(file.with_suffix(".mat"), {"GTcls": content})
        file.unlink()


def matlab_as_unzipped(root):
    matlab(root)
    beside = root.parent.parent / "benchmark_RELEASE/dataset"
    beside.mkdir(parents=True)
    (root / "SegmentationClassAug").rename(beside / "cls")


LAYOUTS = {
    "VOC without SegmentationClassAug": (without_augmented, "--train_set train trains on VOC's own images"),
    "VOC without masks for training": (without_training_masks, "train: 24 images without masks"),
    "suffixes in upper case": (upper_case, "train_aug: 24 images"),
    "AppleDouble files everywhere": (apple_double, "train_aug: 24 images"),
    "VOCdevkit/VOC2007": (voc2007, "train_aug: 24 images"),
    "VOC2012 without VOCdevkit": (without_devkit, "train_aug: 24 images"),
    "SBD's .mat files in SegmentationClassAug": (matlab, "train_aug: 24 images"),
    "SBD as unzipped": (matlab_as_unzipped, "train_aug: 24 images"),
}


@pytest.mark.parametrize("situation", LAYOUTS)
def test_layouts_of_voc(own_voc, capsys, situation):
    change, wanted = LAYOUTS[situation]
    change(root_of(own_voc))
    said = answer(capsys, "voc", own_voc)
    assert wanted in said and "error" not in said
    source = open_source("voc", own_voc, None, 21)
    assert len(source.items("train")) == 24 and all(item.classes for item in source.items("train"))
    if "no list train_aug" not in said:
        for item in source.items("train_aug"):
            assert source.image_file(item.name, "train_aug").exists()
            assert source.ground_truth(item.name, "train_aug", (128, 128)).any()
    else:
        with pytest.raises(UserError, match=r"train_aug.txt is missing, and .* --train_set train trains"):
            source.items("train_aug")


def test_sbd_without_scipy_is_one_sentence(own_voc, capsys, monkeypatch):
    matlab(root_of(own_voc))
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    said = answer(capsys, "voc", own_voc)
    assert ".mat is in MATLAB's format: install SciPy (pip install scipy), which reads it, or write its" in said


COCO_LAYOUTS = {
    "coco/train2014": lambda root: [(root / "JPEGImages" / year).rename(root / year) for year in YEARS],
    "coco/images/train2014": lambda root: (root / "JPEGImages").rename(root / "images"),
}
YEARS = ("train2014", "val2014")


@pytest.mark.parametrize("given", ["data folder", "folder of the set"])
@pytest.mark.parametrize("situation", COCO_LAYOUTS)
def test_layouts_of_coco(own_coco, capsys, situation, given):
    COCO_LAYOUTS[situation](own_coco / "COCO")
    (own_coco / "COCO").rename(own_coco / "coco")
    place = own_coco if given == "data folder" else own_coco / "coco"
    said = answer(capsys, "coco", place)
    assert "train: 6 images" in said and "error" not in said
    source = CocoSource(place)
    assert all(source.image_file(item.name, "train").exists() for item in source.items("train"))


def as_nobody(monkeypatch, folder):
    """Root may write everywhere, so that what cannot be written is decided here."""

    def refused(place, flag):
        if place.is_relative_to(folder):
            raise UserError(f"{flag} {place} cannot be written: Read-only file system")

    monkeypatch.setattr("fsr.data.list_places.check_folder", refused)
    monkeypatch.setattr("fsr.data.prepare.check_folder", refused)


def contents(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*"))


def test_a_read_only_data_set_has_its_lists_and_masks_in_the_cache(own_coco, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.rmtree(own_coco / "COCO/SegmentationClass")
    before = contents(own_coco)
    as_nobody(monkeypatch, own_coco)
    said = answer(capsys, "coco", own_coco, "--write_masks")
    (place,) = (tmp_path / "cache/fsr/lists").iterdir()
    assert f"COCO/ImageSets/fsr cannot be written: lists and masks go to {place}" in said and "error" not in said
    assert f"6 masks written to {place}/SegmentationClass/train2014" in said
    assert contents(own_coco) == before
    source = CocoSource(own_coco)
    assert len(source.items("train")) == 6
    assert source.ground_truth(source.items("val")[0].name, "val", (128, 128)).any()


def test_list_folder_takes_the_masks_of_a_read_only_data_set_too(own_coco, tmp_path, capsys, monkeypatch):
    shutil.rmtree(own_coco / "COCO/SegmentationClass")
    as_nobody(monkeypatch, own_coco)
    said = answer(capsys, "coco", own_coco, "--write_masks", "--list_folder", tmp_path / "lists")
    assert f"2 masks written to {tmp_path}/lists/SegmentationClass/val2014" in said and "error" not in said
    source = CocoSource(own_coco, tmp_path / "lists")
    assert source.ground_truth(source.items("val")[0].name, "val", (128, 128)).any()


def test_lists_remember_where_masks_lie(own_voc, tmp_path, capsys):
    root = root_of(own_voc)
    (root / "SegmentationClassAug").rename(tmp_path / "elsewhere")
    lists = ["--list_folder", tmp_path / "lists"]
    said = answer(capsys, "voc", own_voc, "--mask_folder", tmp_path / "elsewhere", *lists)
    assert "train_aug: 24 images" in said and "error" not in said
    source = VocSource(own_voc, tmp_path / "lists")
    name = source.items("train_aug")[0].name
    assert source.mask_file(name, "train_aug") == tmp_path / f"elsewhere/{name}.png"
    assert source.mask_file(name, "train") == root / f"SegmentationClass/{name}.png"
    assert "train_aug: 24 images" in answer(capsys, "voc", own_voc, *lists)  # which need not name it again
    (tmp_path / "lists/prepared.json").write_text("{")
    assert "prepared.json is damaged: it is not JSON" in answer(capsys, "voc", own_voc, *lists)


def test_a_read_only_data_set_with_lists_is_refused_before_a_file_is_decoded(own_voc, capsys, monkeypatch):
    main(["voc", str(own_voc)])
    as_nobody(monkeypatch, own_voc)
    monkeypatch.setattr("fsr.data.prepare.examine", None)
    said = answer(capsys, "voc", own_voc)
    assert said.endswith("ImageSets/fsr cannot be written: Read-only file system (or give a --list_folder)\n")


def rename_classes(root, names):
    for file in (root / "Annotations").glob("*.xml"):
        text = file.read_text()
        for index, name in enumerate(names, 1):
            text = text.replace(f"<name>{CLASS_NAMES[index]}</name>", f"<name>{name}</name>")
        file.write_text(text)


OWN = ("crack", "rust", "hole", "dent", "leak", "stain", "burn", "dirt")


def test_classes_of_ones_own_are_named_or_read(own_voc, capsys):
    root = root_of(own_voc)
    rename_classes(root, OWN)
    said = answer(capsys, "voc", own_voc)
    assert f"classes of your own ({', '.join(map(repr, sorted(OWN)))}) have to stand in {root}/classes.txt" in said
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in OWN))
    said = answer(capsys, "voc", own_voc)
    assert "error" not in said
    assert open_source("voc", own_voc, None, 9).class_names == ("background", *OWN)
    with pytest.raises(UserError, match=r"num_classes must be at most 9 for .*/classes.txt, got 21"):
        open_source("voc", own_voc, None, 21)
    (root / "classes.txt").write_text("crack\ncrack\n")
    assert "must have each class once" in answer(capsys, "voc", own_voc)


def test_where_neither_the_set_nor_the_cache_can_be_written_both_are_named_with_the_flag(tmp_path, monkeypatch):
    (tmp_path / "VOC2012").mkdir()
    for place in ("VOC2012/ImageSets", "cache"):
        (tmp_path / place).write_text("a file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(UserError) as raised:
        writable_list_folder(tmp_path / "VOC2012")
    told = str(raised.value)
    assert all(str(tmp_path / place) in told for place in ("VOC2012/ImageSets", "cache"))
    assert told.endswith("(or give a --list_folder)")
