"""Rows 1 to 3: masks of whole sets, the truth of each split, lists by subtraction."""

import json
import shutil
from collections.abc import Callable

import numpy as np
from PIL import Image

from data_situations.place import Answer, Place, Situation
from fsr.data.coco import CATEGORIES
from fsr.data.palette import palette_png, voc_palette

CATEGORY = np.array([0, *CATEGORIES, *[255] * (255 - len(CATEGORIES))], np.uint8)  # by class
CONTRADICT = "contradict the annotations of their images, first "
BY_COLOUR = "masks are read by VOC's colours, not by their values, such as "


def renumbered(classes: np.ndarray) -> Image.Image:
    """As an editor stores it: the same colours, numbered as they occur."""
    found, indices = np.unique(classes, return_inverse=True)
    picture = Image.fromarray(indices.reshape(classes.shape).astype(np.uint8))
    picture.putpalette(voc_palette()[found].tobytes())
    return picture


def grey(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], Image.Image]:
    """A mask of 8 bits."""
    return lambda classes: Image.fromarray(change(classes).astype(np.uint8))


def objects(classes: np.ndarray) -> np.ndarray:
    """Where a mask has a class."""
    return (classes > 0) & (classes < 255)


def first_class_only(classes: np.ndarray) -> np.ndarray:
    """The first of the classes of each mask."""
    least = classes[objects(classes)].min(initial=255)
    return np.where(objects(classes) & (classes != least), 0, classes)


def boxes(classes: np.ndarray) -> np.ndarray:
    """Ignored but for a tenth of the objects."""
    kept = objects(classes) & (np.arange(classes.size).reshape(classes.shape) % 10 == 0)
    return np.where(kept, classes, 255)


FORMS = {
    "0 and 255 alone": grey(lambda classes: np.where(classes > 0, 255, 0)),
    "one class each": grey(first_class_only),
    "classes of another order": grey(lambda classes: np.where(objects(classes), classes % 8 + 1, classes)),
    "nearly all ignored": grey(boxes),
    "all background": grey(np.zeros_like),
    "objects and background exchanged": grey(lambda classes: np.where(objects(classes), 0, 3)),
    "classes counted from 2": grey(lambda classes: np.where(objects(classes), classes + 1, classes)),
    "classes from 0, background 255": grey(lambda classes: np.where(objects(classes), classes - 1, 255)),
}
REFUSED_OF_VOC = {
    "0 and 255 alone": CONTRADICT,
    "one class each": "masks of train holds more than one class, but the annotations of",
    "classes of another order": CONTRADICT,
    "nearly all ignored": "masks of train are to be ignored (255) in",
    "all background": CONTRADICT,
    "objects and background exchanged": CONTRADICT,
    "classes counted from 2": CONTRADICT,
    "classes from 0, background 255": CONTRADICT,
}
REFUSED_OF_COCO = REFUSED_OF_VOC | {
    "classes of another order": "but its image the classes",
    "classes counted from 2": "but its image the classes",
    "classes from 0, background 255": "masks of train are to be ignored (255) in",  # COCO-Stuff counts so
    "objects and background exchanged": "but its image the classes",
}


def with_voc_masks(change: Callable[[np.ndarray], Image.Image], *, xml: bool = True) -> Callable[[Place], Answer]:
    """`prepare` of VOC with changed masks."""

    def ask(place: Place) -> Answer:
        place.every_mask(change)
        if not xml:
            shutil.rmtree(place.root / "Annotations")
        return place.prepare()

    return ask


def with_coco_masks(change: Callable[[np.ndarray], Image.Image]) -> Callable[[Place], Answer]:
    """`prepare` of COCO with changed masks."""

    def ask(place: Place) -> Answer:
        place.every_coco_mask(change)
        return place.prepare_coco()

    return ask


def drawn_from(change: Callable[[dict], None]) -> Callable[[Place], Answer]:
    """`prepare coco --write_masks` of annotations of which each was changed."""

    def ask(place: Place) -> Answer:
        for file in (place.coco / "COCO/annotations").iterdir():
            content = json.loads(file.read_text())
            for thing in content["annotations"]:
                change(thing)
            file.write_text(json.dumps(content))
        shutil.rmtree(place.coco / "COCO/SegmentationClass")
        return place.prepare_coco("--write_masks")

    return ask


def to_crowd(thing: dict) -> None:
    """Ignored."""
    thing["iscrowd"] = 1


def to_whole_image(thing: dict) -> None:
    """The outline of the image in place of the object's."""
    thing["segmentation"] = [[0, 0, 128, 0, 128, 128, 0, 128]]


def to_box(thing: dict) -> None:
    """The box in place of the outline, as detectors' exporters write it."""
    x, y, width, height = thing["bbox"]
    thing["segmentation"] = [[x, y, x + width, y, x + width, y + height, x, y + height]]


def exchanged(place: Place) -> Answer:
    """Each mask under its neighbour's name."""
    names = place.listed("train")
    masks = {name: (place.root / f"SegmentationClass/{name}.png").read_bytes() for name in names}
    for name, other in zip(names, names[1:] + names[:1], strict=True):
        for folder in ("SegmentationClass", "SegmentationClassAug"):
            (place.root / folder / f"{name}.png").write_bytes(masks[other])
    return place.prepare()


def exchanged_coco(place: Place) -> Answer:
    """The same of COCO."""
    files = sorted((place.coco / "COCO/SegmentationClass/train2014").iterdir())
    contents = [file.read_bytes() for file in files]
    for file, content in zip(files, contents[1:] + contents[:1], strict=True):
        file.write_bytes(content)
    return place.prepare_coco()


def one_wrong_in_sixty(place: Place) -> Answer:
    """A single mask that contradicts its image."""
    file = min((place.coco / "COCO/SegmentationClass/train2014").iterdir())
    file.write_bytes(palette_png(np.full((128, 128), 70, np.uint8)))
    return place.prepare_coco()


# --- truth of a split


def without_some_augmented(place: Place) -> Answer:
    """A folder made from SBD alone."""
    for name in place.listed("train")[:3]:
        (place.root / f"SegmentationClassAug/{name}.png").unlink()
    return place.prepare()


def without_any_mask(place: Place) -> Answer:
    """Three training images have no mask in either folder."""
    for name in place.listed("train")[:3]:
        for folder in ("SegmentationClass", "SegmentationClassAug"):
            (place.root / folder / f"{name}.png").unlink()
    return place.prepare()


def truth_of_train(place: Place) -> None:
    """VOC's own masks are the truth of train, though SBD has others."""
    source = place.voc_source()
    name = place.listed("train")[0]
    assert source.mask_file(name, "train") == place.root / f"SegmentationClass/{name}.png"
    assert source.mask_file(name, "train_aug") == place.root / f"SegmentationClassAug/{name}.png"


def without_truth_of_val(place: Place) -> Answer:
    """An image of val without a mask."""
    for folder in ("SegmentationClass", "SegmentationClassAug"):
        (place.root / folder / f"{place.listed('val')[0]}.png").unlink()
    return place.prepare()


# --- lists by subtraction


def listing(**lists: Callable[[Place], list[str]]) -> Callable[[Place], Answer]:
    """`prepare` with other lists of VOC's."""

    def ask(place: Place) -> Answer:
        for name, names in {name: names(place) for name, names in lists.items()}.items():
            place.write_listed(name, names)
        return place.prepare()

    return ask


def train(place: Place) -> list[str]:
    """The names in train.txt."""
    return place.listed("train")


def one_of_val(place: Place) -> list[str]:
    """val.txt without its last name."""
    return place.listed("val")[:1]


def not_synthetic(place: Place) -> Answer:
    """The same folder without the mark that it is synthetic."""
    (place.root / "synthetic.json").unlink()
    return place.prepare()


def not_synthetic_coco(place: Place) -> Answer:
    """The same of COCO."""
    (place.coco / "COCO/synthetic.json").unlink()
    return place.prepare_coco()


def shared_by_coco(place: Place) -> Answer:
    """An image of val in the annotations of train."""
    folder = place.coco / "COCO/annotations"
    contents = {split: json.loads((folder / f"instances_{split}2014.json").read_text()) for split in ("train", "val")}
    image = contents["val"]["images"][0]
    contents["train"]["images"].append(image)
    things = [thing for thing in contents["val"]["annotations"] if thing["image_id"] == image["id"]]
    contents["train"]["annotations"] += [thing | {"id": 9000 + thing["id"]} for thing in things]
    (folder / "instances_train2014.json").write_text(json.dumps(contents["train"]))
    return place.prepare_coco()


def never_val_in_train_aug(place: Place) -> None:
    """No image of val is trained on."""
    written = place.root / "ImageSets/fsr/train_aug.txt"
    assert not written.exists() or "2012_000025" not in written.read_text()


SITUATIONS = [
    *(Situation(1, f"VOC: {name}", with_voc_masks(FORMS[name]), REFUSED_OF_VOC[name], True) for name in FORMS),
    *(Situation(1, f"COCO: {name}", with_coco_masks(FORMS[name]), REFUSED_OF_COCO[name], True) for name in FORMS),
    Situation(1, "VOC: 0 and 255, no XML", with_voc_masks(FORMS["0 and 255 alone"], xml=False), "holds a class", True),
    Situation(1, "VOC: masks under each other's names", exchanged, CONTRADICT, True),
    Situation(1, "COCO: masks under each other's names", exchanged_coco, "but its image the classes", True),
    Situation(1, "COCO: one mask of sixty is another's", one_wrong_in_sixty, "train: 1 masks contradict", False),
    Situation(1, "VOC: a palette that an editor renumbered", with_voc_masks(renumbered), BY_COLOUR),
    Situation(1, "COCO: a palette that an editor renumbered", with_coco_masks(renumbered), BY_COLOUR),
    Situation(1, "VOC: RGB", with_voc_masks(lambda ids: Image.fromarray(voc_palette()[ids])), BY_COLOUR),
    Situation(1, "COCO: RGB", with_coco_masks(lambda ids: Image.fromarray(voc_palette()[ids])), BY_COLOUR),
    Situation(1, "VOC: grey of 16 bits", with_voc_masks(lambda ids: Image.fromarray(ids.astype("u2"))), "24 images"),
    Situation(1, "COCO: categories' own ids", with_coco_masks(grey(lambda ids: CATEGORY[ids])), "train: 60 images"),
    Situation(1, "COCO's JSON: all objects are crowds", drawn_from(to_crowd), CONTRADICT, True),
    Situation(1, "COCO's JSON: each outline is the image's", drawn_from(to_whole_image), "more than one class", True),
    Situation(1, "COCO's JSON: boxes for outlines", drawn_from(to_box), "are boxes, and so are the masks", False),
    Situation(2, "some augmented masks are missing", without_some_augmented, "train_aug: 24 images"),
    Situation(2, "some have no mask at all", without_any_mask, "train: 3 images without masks", check=truth_of_train),
    Situation(2, "an image of val has no mask", without_truth_of_val, "1 bad files in", True),
    Situation(3, "val.txt is shortened", listing(val=one_of_val), "lack 1 images of trainval.txt", True),
    Situation(3, "val.txt and trainval.txt are", listing(val=one_of_val, trainval=train), "may belong to val", True),
    Situation(
        3,
        "val.txt is, with an official list",
        listing(val=one_of_val, train_aug=train),
        "train_aug: 24 images",
        check=never_val_in_train_aug,
    ),
    Situation(
        3,
        "train.txt has an image of val.txt",
        listing(train=lambda place: train(place) + one_of_val(place)),
        "the lists train and val of",
        True,
    ),
    Situation(
        3,
        "train_aug.txt has one",
        listing(train_aug=lambda place: train(place) + one_of_val(place)),
        "the lists train_aug and val of",
        True,
    ),
    Situation(3, "VOC of 24 images", not_synthetic, "train has 24 images, but VOC2012 1464: is its list whole?"),
    Situation(3, "COCO of 60 images", not_synthetic_coco, "train has 60 images, but COCO 82081: is its list whole?"),
    Situation(3, "COCO's train has an image of val", shared_by_coco, "", True),
]
