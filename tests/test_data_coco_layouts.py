"""COCO masks that number their classes as COCO's categories, 1 to 90, are recognised; no mask is silently misread."""

import shutil

import numpy as np
import pytest
from PIL import Image
from real_sets import as_real

from fsr.data.coco import CATEGORIES, LAYOUTS, CocoSource
from fsr.data.coco_layouts import recognise
from fsr.data.lists import Item, write_list
from fsr.data.palette import palette_png
from fsr.data.prepare import main
from fsr.data.synthetic import synthesise
from fsr.errors import UserError

CATEGORY = np.array([0, *CATEGORIES, *[255] * (255 - len(CATEGORIES))], np.uint8)  # by class
# What each layout writes for a class.
WAYS = {
    "classes": np.arange(256).astype(np.uint8),
    "category ids": CATEGORY,
    "COCO-Stuff": np.array([120, *(category - 1 for category in CATEGORIES), *[255] * 175], np.uint8),
}


def mask_of(classes: tuple[int, ...]) -> np.ndarray:
    """A mask with background, these classes and an ignored pixel."""
    return np.array([[0, *classes, 255]], np.uint8)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("images", [[(1,), (1, 13)], [(80,)], [(2, 3), (5,), (60, 79)], [(12,)], [(11, 1), (40,)]])
def test_every_layout_is_recognised_by_its_images_labels(way, images, tmp_path):
    masks = [(tmp_path, WAYS[way][mask_of(classes)], classes) for classes in images]
    table = LAYOUTS[recognise(iter(masks), LAYOUTS)]
    for _, values, classes in masks:
        assert np.array_equal(table[values], mask_of(classes))


def test_masks_that_fit_no_layout_are_an_error_that_names_the_file(tmp_path):
    masks = [(tmp_path / "odd.png", np.array([[0, 30]], np.uint8), (7,))]
    with pytest.raises(UserError, match=r"odd.png holds the values 0, 30, but its image the classes 7; allowed"):
        recognise(masks, LAYOUTS)


def test_a_few_masks_that_contradict_their_images_do_not_hide_the_layout(tmp_path):
    masks = [(tmp_path, CATEGORY[mask_of((79,))], (79,)) for _ in range(100)]
    masks[0] = (tmp_path / "odd.png", CATEGORY[mask_of((1, 79))], (79,))
    assert recognise(masks, LAYOUTS) == "category ids 0 to 90"
    masks[1:4] = masks[:1] * 3
    with pytest.raises(
        UserError, match=r"odd.png .* allowed layouts: .*, of which the best contradicts 4 of 100 masks"
    ):
        recognise(masks, LAYOUTS)


def test_as_long_as_nothing_tells_the_layouts_apart_all_say_the_same(tmp_path):
    masks = [(tmp_path, np.array([[0, 1, 2, 11]], np.uint8), (1, 2, 11))]  # equal in two of the three
    table = LAYOUTS[recognise(masks, LAYOUTS)]
    assert table[[0, 1, 2, 11]].tolist() == [0, 1, 2, 11]


@pytest.fixture
def folder(tmp_path):
    synthesise(tmp_path / "coco", "coco", images=6, seed=1)
    return as_real(tmp_path / "coco")


@pytest.mark.parametrize("way", WAYS)
def test_a_source_reads_the_same_ground_truth_from_masks_of_any_layout(way, folder):
    """The synthetic classes are 1..8; here they become 73..80, where COCO's ids have gaps before them."""
    ground_truths, lists = {}, {}
    source = CocoSource(folder)
    for split in ("train", "val"):
        items = [Item(item.name, tuple(c + 72 for c in item.classes)) for item in source.items(split)]
        for item in items:
            file = source.mask_file(item.name, split)
            classes = np.array(Image.open(file))
            classes[(classes > 0) & (classes < 255)] += 72
            ground_truths[item.name] = classes
            file.write_bytes(palette_png(WAYS[way][classes]))
        write_list(source.list_folder / f"{split}.txt", items)
        lists[split] = items
    source = CocoSource(folder)
    for split, items in lists.items():
        for item in items:
            assert np.array_equal(source.ground_truth(item.name, split, None), ground_truths[item.name])


def test_a_value_that_means_no_class_is_an_error(folder):
    source = CocoSource(folder)
    *_, last = source.items("train")
    file = source.mask_file(last.name, "train")
    classes = np.array(Image.open(file))
    classes[0, 0] = 95
    file.write_bytes(palette_png(classes))
    with pytest.raises(UserError, match=rf"{file.name} holds the values .*95"):
        source.ground_truth(last.name, "train", None)
    source.recognise_masks("train", source.items("train")[:-1])  # as in a set larger than what is looked at
    with pytest.raises(UserError, match=rf"{file.name} has the value 95"):
        source.ground_truth(last.name, "train", None)


def test_preparing_accepts_masks_of_another_layout(folder, tmp_path, capsys):
    source = CocoSource(folder)
    copy = shutil.copytree(folder, tmp_path / "copy")
    for file in (copy / "COCO/SegmentationClass").rglob("*.png"):
        file.write_bytes(palette_png(WAYS["COCO-Stuff"][np.array(Image.open(file))]))
    main(["coco", str(copy)])
    said = capsys.readouterr().out
    assert "val: masks are read as COCO-Stuff's category ids less 1" in said and "val: 2 images" in said
    name = source.items("val")[0].name
    assert np.array_equal(CocoSource(copy).ground_truth(name, "val", None), source.ground_truth(name, "val", None))
