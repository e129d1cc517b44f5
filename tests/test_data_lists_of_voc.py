"""Lists of VOC and COCO that are short, share images or have another number of them."""

import pytest
from data_answers import answer, listed, root_of, write_listed


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
def test_lists_of_voc(own_voc, capsys, situation):
    change, wanted = VOC_LISTS[situation]
    change(root_of(own_voc))
    said = answer(capsys, "voc", own_voc)
    assert wanted in said
    assert ("error" in said) != (own_voc / "VOCdevkit/VOC2012/ImageSets/fsr/train.txt").exists()
    written = root_of(own_voc) / "ImageSets/fsr/train_aug.txt"
    assert not written.exists() or "2012_000025" not in written.read_text()


def test_counts_of_coco_are_compared(own_coco, capsys):
    assert "but COCO" not in answer(capsys, "coco", own_coco)
    (own_coco / "COCO/synthetic.json").unlink()
    said = answer(capsys, "coco", own_coco)
    assert "train has 6 images, but COCO 82081: is its list whole?\nval has 2 images, but COCO 40137" in said
