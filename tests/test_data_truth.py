"""Masks of whole sets and of single images: read rightly, said, or refused in one sentence."""

import re
import shutil

import numpy as np
import pytest
from data_answers import answer, every_mask, listed, root_of
from PIL import Image

from fsr.data.images import read_mask
from fsr.data.palette import palette_png, voc_palette
from fsr.data.truth import Truth, wrong_truth
from fsr.data.voc import CLASS_NAMES, VocSource
from fsr.data.voc_labels import voc_classes
from fsr.errors import UserError


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
def test_masks_that_say_the_same_in_another_form(own_voc, synthetic_folder, capsys, situation, with_xml):
    change, wanted = READ[situation]
    every_mask(root_of(own_voc), change)
    if not with_xml:
        shutil.rmtree(root_of(own_voc) / "Annotations")
    said = answer(capsys, "voc", own_voc)
    assert wanted in said and "error" not in said
    changed, plain = VocSource(own_voc), VocSource(synthetic_folder)
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
def test_sets_of_masks_that_cannot_be_the_ground_truth(own_voc, capsys, situation):
    change, with_xml, wanted = WRONG[situation]
    every_mask(root_of(own_voc), change)
    if not with_xml:
        shutil.rmtree(root_of(own_voc) / "Annotations")
    said = answer(capsys, "voc", own_voc)
    assert wanted in said and said.splitlines()[-1].startswith("error: ")
    assert not (root_of(own_voc) / "ImageSets/fsr").exists()


def test_masks_under_each_others_names(own_voc, capsys):
    root = root_of(own_voc)
    names = listed(root, "train")
    masks = {name: (root / f"SegmentationClass/{name}.png").read_bytes() for name in names}
    for name, other in zip(names, names[1:] + names[:1], strict=True):
        for place in ("SegmentationClass", "SegmentationClassAug"):
            (root / place / f"{name}.png").write_bytes(masks[other])
    said = answer(capsys, "voc", own_voc)
    assert "masks of train contradict the annotations of their images" in said


def test_a_few_contradictions_of_a_large_set_are_named_and_no_reason_to_refuse():
    truths = [Truth(f"x{index}", (1, 2), (1, 2), 0.05) for index in range(98)]
    assert wrong_truth("train", [*truths, Truth("y", (3,), (1,), 0.05)], CLASS_NAMES) is None
    others = [Truth(f"y{index}", (3,), (1,), 0.05) for index in range(3)]
    assert "3 of 101 masks of train contradict" in wrong_truth("train", truths + others, CLASS_NAMES)


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
        assert wanted in str(refused.value) and str(refused.value).startswith(f"mask {file} ")
    else:
        assert np.array_equal(read_mask(file, None, 21), wanted)


def test_truth_of_train_and_val_is_vocs_own_and_of_train_aug_sbds(own_voc):
    source = VocSource(own_voc)
    name = listed(source.root, "train")[0]
    own, augmented = (source.root / place / f"{name}.png" for place in ("SegmentationClass", "SegmentationClassAug"))
    assert [source.mask_file(name, split) for split in ("train", "val", "train_aug")] == [own, own, augmented]
    own.unlink()
    assert source.mask_file(name, "train") == augmented
    augmented.unlink()
    shutil.copy(augmented.with_name(f"{listed(source.root, 'train')[1]}.png"), own)
    assert source.mask_file(name, "train_aug") == own


@pytest.mark.parametrize("place", ["Annotations", "SegmentationClass"])
def test_a_link_to_nothing_is_named_and_nothing_else_is_read_in_its_place(own_voc, place):
    source = VocSource(own_voc)
    name = listed(source.root, "train")[0]
    (file,) = (source.root / place).glob(f"{name}.*")
    file.unlink()
    file.symlink_to("gone")
    with pytest.raises(UserError, match=re.escape(str(file))):
        source.ground_truth(name, "train", None) if place == "SegmentationClass" else voc_classes(source, name, None)


def test_a_folder_of_sbd_alone_lacks_some_masks(own_voc, capsys):
    root = root_of(own_voc)
    lacking = listed(root, "train")[:3]
    for name in lacking:
        (root / f"SegmentationClassAug/{name}.png").unlink()
    said = answer(capsys, "voc", own_voc)
    assert "error" not in said and "train_aug: 24 images" in said and "without masks" not in said
    for name in lacking:
        (root / f"SegmentationClass/{name}.png").unlink()
    said = answer(capsys, "voc", own_voc)
    assert "train: 3 images without masks (needed only for an evaluation on this set)" in said
    assert "error" not in said and "train_aug: 24 images" in said
    (root / f"Annotations/{lacking[0]}.xml").unlink()
    assert f"{lacking[0]}.jpg has neither annotation nor mask: nothing labels it" in answer(capsys, "voc", own_voc)
