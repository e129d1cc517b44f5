"""Lists of VOC and COCO that are short, share images or have another number of them."""

import shutil
from pathlib import Path

import pytest
from data_answers import answer, listed, root_of, write_listed

from fsr.data.synthetic import synthesise


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
    assert wanted in said
    assert ("error" in said) != (folder / "VOCdevkit/VOC2012/ImageSets/fsr/train.txt").exists()
    written = root_of(folder) / "ImageSets/fsr/train_aug.txt"
    assert not written.exists() or "2012_000025" not in written.read_text()


def test_counts_of_coco_are_compared(coco, capsys):
    assert "but COCO" not in answer(capsys, "coco", coco)
    (coco / "COCO/synthetic.json").unlink()
    said = answer(capsys, "coco", coco)
    assert "train has 6 images, but COCO 82081: is its list whole?\nval has 2 images, but COCO 40137" in said
