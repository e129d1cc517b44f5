"""VOC and COCO as people have them: each situation is read rightly, said, or refused in one sentence.

`pytest -s` prints situation → answer.
"""

import re
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from inference import save_checkpoint
from PIL import Image
from tiny import tiny_config

from fsr.data.coco import CocoSource
from fsr.data.images import read_mask
from fsr.data.jpeg_damage import catch_warnings, damage
from fsr.data.palette import palette_png, voc_palette
from fsr.data.prepare import main
from fsr.data.scenes import draw_scene
from fsr.data.source import open_source
from fsr.data.synthetic import synthesise
from fsr.data.truth import Truth, wrong_truth
from fsr.data.voc import CLASS_NAMES, VocSource
from fsr.data.voc_labels import voc_classes
from fsr.errors import UserError
from fsr.evaluate import evaluate
from fsr.infer import infer
from fsr.inference.config import InferConfig
from fsr.inference.multi_scale import multi_scale_inference
from fsr.models.network import Network

LISTS = "ImageSets/Segmentation"


@pytest.fixture
def folder(synthetic_folder, tmp_path) -> Path:
    """A set in VOC's layout that a test may change, without its prepared lists: 24 training images, 2 of val."""
    shutil.copytree(synthetic_folder, tmp_path / "voc")
    shutil.rmtree(tmp_path / "voc/VOCdevkit/VOC2012/ImageSets/fsr")
    return tmp_path / "voc"


@pytest.fixture(scope="session")
def made_coco(tmp_path_factory) -> Path:
    """A set in COCO's layout: 6 training images, 2 of val. Do not change it."""
    folder = tmp_path_factory.mktemp("people") / "coco"
    synthesise(folder, "coco", images=6, seed=1)
    return folder


@pytest.fixture
def coco(made_coco, tmp_path) -> Path:
    """The same, which a test may change, without its prepared lists."""
    shutil.copytree(made_coco, tmp_path / "coco")
    shutil.rmtree(tmp_path / "coco/COCO/ImageSets")
    return tmp_path / "coco"


def answer(capsys, *arguments) -> str:
    """What `prepare` prints, and the sentence with which it refuses."""
    capsys.readouterr()
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        assert end.code == 2
    told = capsys.readouterr()
    assert "Traceback" not in told.err
    if told.err:
        assert told.err.startswith("error: ") and told.err.count("\n") == 1, told.err
    return told.out + told.err


def tell(capsys, situation: str, said: str) -> None:
    with capsys.disabled():
        if "-s" in sys.argv:
            print(f"\n{situation}\n  → {said.strip().replace(chr(10), chr(10) + '    ')}")


def root_of(folder: Path) -> Path:
    return folder / "VOCdevkit/VOC2012"


def listed(root: Path, name: str) -> list[str]:
    return (root / LISTS / f"{name}.txt").read_text().split()


def write_listed(root: Path, name: str, names: list[str]) -> None:
    (root / LISTS / f"{name}.txt").write_text("".join(f"{name}\n" for name in names))


def every_mask(root: Path, change) -> None:
    """Store each mask anew; `change` makes a picture of class ids [H, W]."""
    for place in ("SegmentationClass", "SegmentationClassAug"):
        for file in (root / place).glob("*.png"):
            change(np.array(Image.open(file))).save(file)


# --- lists


def shorten_val(root):
    write_listed(root, "val", listed(root, "val")[:1])


def shorten_val_everywhere(root):
    shorten_val(root)
    write_listed(root, "trainval", listed(root, "train") + listed(root, "val"))


def shorten_val_beside_official_list(root):
    write_listed(root, "train_aug", listed(root, "train"))
    shorten_val(root)


def share(root):
    write_listed(root, "train", listed(root, "train") + listed(root, "val")[:1])


def share_officially(root):
    write_listed(root, "train_aug", listed(root, "train") + listed(root, "val")[:1])


VOC_LISTS = {
    "val.txt is shortened": (shorten_val, "lack 1 images of trainval.txt or SegmentationClass, first 2012_000025"),
    "val.txt and trainval.txt are shortened": (shorten_val_everywhere, "first 2012_000025, which may belong to val"),
    "val.txt is shortened, train_aug.txt is there": (shorten_val_beside_official_list, "train_aug: 24 images"),
    "train.txt has an image of val.txt": (share, "the lists train and val of"),
    "train_aug.txt has an image of val.txt": (share_officially, "the lists train_aug and val of"),
    "the set does not say that it is synthetic": (
        lambda root: (root / "synthetic.json").unlink(),
        "train has 24 images, but VOC2012 1464: is its list whole?\nval has 2 images, but VOC2012 1449",
    ),
}


@pytest.mark.parametrize("situation", VOC_LISTS)
def test_lists_of_voc(folder, capsys, situation):
    change, wanted = VOC_LISTS[situation]
    change(root_of(folder))
    said = answer(capsys, "voc", folder)
    tell(capsys, situation, said)
    assert wanted in said
    assert ("error" in said) != (folder / "VOCdevkit/VOC2012/ImageSets/fsr/train.txt").exists()
    written = root_of(folder) / "ImageSets/fsr/train_aug.txt"
    assert not written.exists() or "2012_000025" not in written.read_text()


def test_counts_of_coco_are_compared(coco, capsys):
    assert "but COCO" not in answer(capsys, "coco", coco)
    (coco / "COCO/synthetic.json").unlink()
    said = answer(capsys, "coco", coco)
    tell(capsys, "COCO with 6 training images", said)
    assert "train has 6 images, but COCO 82081: is its list whole?\nval has 2 images, but COCO 40137" in said


# --- masks of a whole set


def renumbered(classes):
    """As an editor stores it: the same colours, numbered as they occur."""
    found, indices = np.unique(classes, return_inverse=True)
    picture = Image.fromarray(indices.reshape(classes.shape).astype(np.uint8))
    picture.putpalette(voc_palette()[found].tobytes())
    return picture


def as_rgb(classes):
    return Image.fromarray(voc_palette()[classes])


def as_rgb_of_ids(classes):
    return Image.fromarray(np.repeat(classes[..., None], 3, axis=2))


def binary(classes):
    return Image.fromarray(np.where(classes > 0, 255, 0).astype(np.uint8))


def first_class_only(classes):
    found = np.unique(classes[(classes > 0) & (classes < 255)])
    return Image.fromarray(np.where((classes == 0) | (classes == found[0]), classes, 0).astype(np.uint8))


def one_class(classes):
    return Image.fromarray(np.where((classes > 0) & (classes < 255), 1, classes).astype(np.uint8))


def mostly_ignored(classes):
    changed = classes.copy()
    changed[:, :90] = np.where(changed[:, :90] == 0, 255, changed[:, :90])
    return Image.fromarray(np.where(changed == 0, 255, changed).astype(np.uint8))


def rotated_classes(classes):
    return Image.fromarray(np.where((classes > 0) & (classes < 255), classes % 8 + 1, classes).astype(np.uint8))


READ = {
    "a palette that an editor renumbered": (renumbered, "masks are read by VOC's colours, not by their values"),
    "RGB in VOC's colours": (as_rgb, "masks are read by VOC's colours, not by their values"),
    "grey of 8 bits": (Image.fromarray, ""),
    "grey of 16 bits": (lambda classes: Image.fromarray(classes.astype(np.uint16)), ""),
    "a palette of levels of grey": (lambda classes: Image.fromarray(classes).convert("L").convert("L"), ""),
    "RGB whose three channels are the class": (as_rgb_of_ids, "masks are read by VOC's colours, not by"),
}


@pytest.mark.parametrize("with_xml", [True, False], ids=["XML", "no XML"])
@pytest.mark.parametrize("situation", READ)
def test_masks_that_say_the_same_in_another_form(folder, synthetic_folder, capsys, situation, with_xml):
    change, wanted = READ[situation]
    every_mask(root_of(folder), change)
    if not with_xml:
        shutil.rmtree(root_of(folder) / "Annotations")
    said = answer(capsys, "voc", folder)
    tell(capsys, f"masks: {situation}", said)
    assert wanted in said and "error" not in said
    changed, plain = VocSource(folder), VocSource(synthetic_folder)
    for split in ("train", "val"):
        assert changed.items(split) == plain.items(split)
        for item in plain.items(split):
            size = (128, 128)
            assert np.array_equal(
                changed.ground_truth(item.name, split, size), plain.ground_truth(item.name, split, size)
            )


WRONG = {
    "0 and 255 alone": (binary, True, "of 24 masks of train contradict the annotations of their images, first 2012_0"),
    "0 and 255 alone, no XML": (
        binary,
        False,
        "none of 24 masks of train holds a class, but background and pixels to be ignored (255)",
    ),
    "classes of another order": (rotated_classes, True, "contradict the annotations of their images, first 2012_0"),
    "one class each": (first_class_only, True, "masks of train holds more than one class, but the annotations of"),
    "one class, no XML": (one_class, False, "hold the class aeroplane alone, and no annotation says"),
    "all background ignored": (mostly_ignored, True, "masks of train are to be ignored (255) in"),
}


@pytest.mark.parametrize("situation", WRONG)
def test_sets_of_masks_that_cannot_be_the_ground_truth(folder, capsys, situation):
    change, with_xml, wanted = WRONG[situation]
    every_mask(root_of(folder), change)
    if not with_xml:
        shutil.rmtree(root_of(folder) / "Annotations")
    said = answer(capsys, "voc", folder)
    tell(capsys, f"masks: {situation}", said)
    assert wanted in said and said.splitlines()[-1].startswith("error: ")
    assert not (root_of(folder) / "ImageSets/fsr").exists()


def test_masks_under_each_others_names(folder, capsys):
    root = root_of(folder)
    names = listed(root, "train")
    masks = {name: (root / f"SegmentationClass/{name}.png").read_bytes() for name in names}
    for name, other in zip(names, names[1:] + names[:1], strict=True):
        for place in ("SegmentationClass", "SegmentationClassAug"):
            (root / place / f"{name}.png").write_bytes(masks[other])
    said = answer(capsys, "voc", folder)
    tell(capsys, "each mask has its neighbour's name", said)
    assert "masks of train contradict the annotations of their images" in said


def test_a_few_contradictions_of_a_large_set_are_named_and_no_reason_to_refuse():
    truths = [Truth(f"x{index}", (1, 2), (1, 2), 0.05) for index in range(98)]
    assert wrong_truth("train", [*truths, Truth("y", (3,), (1,), 0.05)], CLASS_NAMES) is None
    others = [Truth(f"y{index}", (3,), (1,), 0.05) for index in range(3)]
    assert "3 of 101 masks of train contradict" in wrong_truth("train", truths + others, CLASS_NAMES)


# --- single masks

IDS = np.array([[0, 1, 2, 15, 255]], np.uint8)


def with_palette(indices, colours):
    picture = Image.fromarray(np.array([indices], np.uint8))
    picture.putpalette(np.array(colours, np.uint8).tobytes())
    return picture


VOC_COLOURS = voc_palette()
SINGLE = {
    "VOC's own form": (None, IDS),
    "RGB": (as_rgb(IDS), IDS),
    "RGB of opaque alpha": (as_rgb(IDS).convert("RGBA"), IDS),
    "RGB with white for ignored pixels": (Image.fromarray(np.where(IDS[..., None] == 255, 255, VOC_COLOURS[IDS])), IDS),
    "RGB of another colour": (Image.new("RGB", (5, 1), (1, 2, 3)), "the colour (1, 2, 3), which is none of VOC's"),
    "RGB that is transparent": (Image.new("RGBA", (5, 1), (0, 0, 0, 9)), "got mode RGBA: transparent pixels"),
    "a palette of 21 colours, 255 without": (with_palette(IDS[0], VOC_COLOURS[:21]), IDS),
    "a palette of other colours": (with_palette(IDS[0], np.roll(np.arange(768), 5) % 251), IDS),
    "VOC's colours renumbered": (with_palette([0, 1, 2, 3, 4], VOC_COLOURS[IDS[0]]), IDS),
    "VOC's colours renumbered, one of them none": (
        with_palette([0, 1, 2, 3, 4], [(0, 0, 0), (0, 128, 0), (128, 0, 0), (1, 2, 3), (9, 9, 9)]),
        "its index 1 has VOC's colour of class 2, but index 3 the colour (1, 2, 3)",
    ),
    "grey of 16 bits, spread": (Image.fromarray(IDS.astype(np.uint16) * 257), "has class 257"),
    "grey that was colours": (as_rgb(IDS).convert("L"), "has class 38; allowed are 0 to 20 and 255"),
    "one bit": (Image.fromarray(IDS > 0), "got grey of fewer (1)"),
}


@pytest.mark.parametrize("situation", SINGLE)
def test_single_masks(tmp_path, capsys, situation):
    picture, wanted = SINGLE[situation]
    file = tmp_path / "x.png"
    if picture is None:
        file.write_bytes(palette_png(IDS))
    else:
        picture.save(file)
    if isinstance(wanted, str):
        with pytest.raises(UserError) as refused:
            read_mask(file, None, 21)
        tell(capsys, f"a mask: {situation}", str(refused.value))
        assert wanted in str(refused.value) and str(refused.value).startswith(f"mask {file} ")
    else:
        tell(capsys, f"a mask: {situation}", "read")
        assert np.array_equal(read_mask(file, None, 21), wanted)


# --- truth by split


def test_truth_of_train_and_val_is_vocs_own_and_of_train_aug_sbds(folder):
    source = VocSource(folder)
    name = listed(source.root, "train")[0]
    own, augmented = (source.root / place / f"{name}.png" for place in ("SegmentationClass", "SegmentationClassAug"))
    assert [source.mask_file(name, split) for split in ("train", "val", "train_aug")] == [own, own, augmented]
    own.unlink()
    assert source.mask_file(name, "train") == augmented
    augmented.unlink()
    shutil.copy(augmented.with_name(f"{listed(source.root, 'train')[1]}.png"), own)
    assert source.mask_file(name, "train_aug") == own


@pytest.mark.parametrize("place", ["Annotations", "SegmentationClass"])
def test_a_link_to_nothing_is_named_and_nothing_else_is_read_in_its_place(folder, place):
    source = VocSource(folder)
    name = listed(source.root, "train")[0]
    (file,) = (source.root / place).glob(f"{name}.*")
    file.unlink()
    file.symlink_to("gone")
    with pytest.raises(UserError, match=re.escape(str(file))):
        source.ground_truth(name, "train", None) if place == "SegmentationClass" else voc_classes(source, name, None)


def test_a_folder_of_sbd_alone_lacks_some_masks(folder, capsys):
    root = root_of(folder)
    lacking = listed(root, "train")[:3]
    for name in lacking:
        (root / f"SegmentationClassAug/{name}.png").unlink()
    said = answer(capsys, "voc", folder)
    assert "error" not in said and "train_aug: 24 images" in said and "without masks" not in said
    for name in lacking:
        (root / f"SegmentationClass/{name}.png").unlink()
    said = answer(capsys, "voc", folder)
    tell(capsys, "three training images have no mask at all", said)
    assert "train: 3 images without masks (needed only for an evaluation on this set)" in said
    assert "error" not in said and "train_aug: 24 images" in said
    (root / f"Annotations/{lacking[0]}.xml").unlink()
    assert f"{lacking[0]}.jpg has neither annotation nor mask: nothing labels it" in answer(capsys, "voc", folder)


# --- layouts


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
def test_layouts_of_voc(folder, capsys, situation):
    change, wanted = LAYOUTS[situation]
    change(root_of(folder))
    said = answer(capsys, "voc", folder)
    tell(capsys, situation, said)
    assert wanted in said and "error" not in said
    source = open_source("voc", folder, None, 21)
    assert len(source.items("train")) == 24 and all(item.classes for item in source.items("train"))
    if "no list train_aug" not in said:
        for item in source.items("train_aug"):
            assert source.image_file(item.name, "train_aug").exists()
            assert source.ground_truth(item.name, "train_aug", (128, 128)).any()
    else:
        with pytest.raises(UserError, match=r"train_aug.txt is missing, and .* --train_set train trains"):
            source.items("train_aug")


def test_sbd_without_scipy_is_one_sentence(folder, capsys, monkeypatch):
    matlab(root_of(folder))
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    said = answer(capsys, "voc", folder)
    tell(capsys, "SBD's .mat files without SciPy", said.splitlines()[0])
    assert ".mat is in MATLAB's format: install SciPy (pip install scipy), which reads it, or write its" in said


COCO_LAYOUTS = {
    "coco/train2014": lambda root: [(root / "JPEGImages" / year).rename(root / year) for year in YEARS],
    "coco/images/train2014": lambda root: (root / "JPEGImages").rename(root / "images"),
}
YEARS = ("train2014", "val2014")


@pytest.mark.parametrize("given", ["data folder", "folder of the set"])
@pytest.mark.parametrize("situation", COCO_LAYOUTS)
def test_layouts_of_coco(coco, capsys, situation, given):
    COCO_LAYOUTS[situation](coco / "COCO")
    (coco / "COCO").rename(coco / "coco")
    place = coco if given == "data folder" else coco / "coco"
    said = answer(capsys, "coco", place)
    tell(capsys, f"{situation}, {given} given", said)
    assert "train: 6 images" in said and "error" not in said
    source = CocoSource(place)
    assert all(source.image_file(item.name, "train").exists() for item in source.items("train"))


# --- read-only data sets


def as_nobody(monkeypatch, folder):
    """Root may write everywhere, so that what cannot be written is decided here."""

    def refused(place, flag):
        if place.is_relative_to(folder):
            raise UserError(f"{flag} {place} cannot be written: Read-only file system")

    monkeypatch.setattr("fsr.data.list_places.check_folder", refused)
    monkeypatch.setattr("fsr.data.prepare.check_folder", refused)


def contents(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*"))


def test_a_read_only_data_set_has_its_lists_and_masks_in_the_cache(coco, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.rmtree(coco / "COCO/SegmentationClass")
    before = contents(coco)
    as_nobody(monkeypatch, coco)
    said = answer(capsys, "coco", coco, "--write_masks")
    tell(capsys, "COCO on a read-only disk", said)
    (place,) = (tmp_path / "cache/fsr/lists").iterdir()
    assert f"COCO/ImageSets/fsr cannot be written: lists and masks go to {place}" in said and "error" not in said
    assert f"6 masks written to {place}/SegmentationClass/train2014" in said
    assert contents(coco) == before
    source = CocoSource(coco)
    assert len(source.items("train")) == 6
    assert source.ground_truth(source.items("val")[0].name, "val", (128, 128)).any()


def test_list_folder_takes_the_masks_of_a_read_only_data_set_too(coco, tmp_path, capsys, monkeypatch):
    shutil.rmtree(coco / "COCO/SegmentationClass")
    as_nobody(monkeypatch, coco)
    said = answer(capsys, "coco", coco, "--write_masks", "--list_folder", tmp_path / "lists")
    assert f"2 masks written to {tmp_path}/lists/SegmentationClass/val2014" in said and "error" not in said
    source = CocoSource(coco, tmp_path / "lists")
    assert source.ground_truth(source.items("val")[0].name, "val", (128, 128)).any()


def test_a_read_only_data_set_with_lists_is_refused_before_a_file_is_decoded(folder, capsys, monkeypatch):
    main(["voc", str(folder)])
    as_nobody(monkeypatch, folder)
    monkeypatch.setattr("fsr.data.prepare.examine", None)
    said = answer(capsys, "voc", folder)
    tell(capsys, "a read-only set that has lists", said)
    assert said.endswith("ImageSets/fsr cannot be written: Read-only file system (or give a --list_folder)\n")


# --- small pictures


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (1000, 3)])
def test_pictures_smaller_than_a_patch_are_resized_up_to_it(folder, tmp_path, capsys, size):
    root = root_of(folder)
    for name in listed(root, "val"):
        Image.new("RGB", size, (9, 99, 200)).save(root / f"JPEGImages/{name}.jpg")
        (root / f"SegmentationClass/{name}.png").write_bytes(palette_png(np.full(size[::-1], 1, np.uint8)))
        xml = root / f"Annotations/{name}.xml"
        xml.write_text("<annotation><object><name>aeroplane</name></object></annotation>")
    said = answer(capsys, "voc", folder)
    tell(capsys, f"pictures of {size[0]} x {size[1]} pixels", said)
    assert "2 images have a side below 16 pixels, a patch at the smallest scale, and are resized up" in said
    config = tiny_config(folder)
    network = Network(config).eval()
    source = open_source("synthetic", folder, None, 9)
    scores = evaluate({"student": network}, config, source, torch.device("cpu")).scores
    assert scores["val/seg_pixel_accuracy"] is not None
    images = torch.zeros(1, 3, size[1], size[0])
    fused = multi_scale_inference(network, images, None, (1.0, 0.25))
    assert fused.logits.shape == (1, 9, size[1], size[0])
    main_of_infer = InferConfig(
        dataset="synthetic", checkpoint=save_checkpoint(tmp_path / "best.pt", config), data_folder=folder, workers=0
    )
    assert infer(main_of_infer) == "finished"


# --- damaged pictures


def halves(content: bytes) -> dict[str, bytes]:
    """Damages of a JPEG's scan, which decodes all the same."""
    middle = (content.index(b"\xff\xda") + len(content)) // 2
    noise = np.random.default_rng(0).bytes(300)
    return {
        "cut and closed": content[:middle] + b"\xff\xd9",
        "zeros to its end": content[:middle] + bytes(len(content) - middle - 2) + b"\xff\xd9",
        "garbage": content[:middle] + noise + content[middle + 300 :],
        "300 bytes gone": content[:middle] + content[middle + 300 :],
    }


def test_damaged_pictures_that_decode_are_named_and_left_out(folder, capsys):
    source = VocSource(folder)
    names = listed(source.root, "train")
    sound = {name: source.image_file(name, "train").read_bytes() for name in names}
    for name, damaged in zip(names, halves(sound[names[0]]).values(), strict=False):
        source.image_file(name, "train").write_bytes(damaged)
    said = answer(capsys, "voc", folder)
    tell(capsys, "four damaged pictures", said)
    for name in names[:4]:
        assert f"image {source.image_file(name, 'train')} is damaged: " in said or f"{name}.jpg cannot be read" in said
    assert "4 bad files in" in said and not source.list_folder.exists()
    said = answer(capsys, "voc", folder, "--skip_bad")
    tell(capsys, "the same with --skip_bad", said)
    assert f"train: 4 images are left out: {', '.join(names[:4])}" in said and "error" not in said
    assert [item.name for item in source.items("train")] == names[4:]
    assert len(source.items("train_aug")) == 20 and len(source.items("val")) == 2


FORMS = {
    "baseline": {},
    "progressive": {"progressive": True},
    "optimised": {"optimize": True},
    "restart markers": {"restart_marker_rows": 1},
    "no subsampling": {"subsampling": 0},
}


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_sound_pictures_are_not_called_damaged(tmp_path, mode):
    picture = Image.fromarray(draw_scene(0, 0).pixels).convert(mode)
    files = []
    for what, options in FORMS.items():
        files.append(tmp_path / f"{what}.jpg")
        picture.save(files[-1], "JPEG", **({} if mode != "RGB" and what == "no subsampling" else options))
    picture.convert("RGB").save(tmp_path / "png.jpg", "PNG")
    (tmp_path / "trailing.jpg").write_bytes(files[0].read_bytes() + bytes(40))
    files += [tmp_path / "png.jpg", tmp_path / "trailing.jpg"]
    with ProcessPoolExecutor(1, get_context("fork"), catch_warnings) as pool:
        assert list(pool.map(damage, files)) == [None] * len(files)


# --- classes of one's own


def rename_classes(root, names):
    for file in (root / "Annotations").glob("*.xml"):
        text = file.read_text()
        for index, name in enumerate(names, 1):
            text = text.replace(f"<name>{CLASS_NAMES[index]}</name>", f"<name>{name}</name>")
        file.write_text(text)


OWN = ("crack", "rust", "hole", "dent", "leak", "stain", "burn", "dirt")


def test_classes_of_ones_own_are_named_or_read(folder, capsys):
    root = root_of(folder)
    rename_classes(root, OWN)
    said = answer(capsys, "voc", folder)
    tell(capsys, "VOC's layout, other classes", said.splitlines()[-1])
    assert f"classes of your own ({', '.join(map(repr, sorted(OWN)))}) have to stand in {root}/classes.txt" in said
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in OWN))
    said = answer(capsys, "voc", folder)
    tell(capsys, "the same with classes.txt", said)
    assert "error" not in said
    assert open_source("voc", folder, None, 9).class_names == ("background", *OWN)
    with pytest.raises(UserError, match=r"num_classes must be at most 9 for .*/classes.txt, got 21"):
        open_source("voc", folder, None, 21)
    (root / "classes.txt").write_text("crack\ncrack\n")
    assert "must have each class once" in answer(capsys, "voc", folder)
