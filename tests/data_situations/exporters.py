"""Row 6: COCO's JSON as exporters write it."""

import json
import math
import shutil
from collections.abc import Callable
from typing import Any

from data_situations.place import Answer, Place, Situation
from fsr.data.coco import CATEGORIES

Change = Callable[[dict[str, Any]], object]
BOX = [10.0, 20.0, 60.0, 20.0, 60.0, 70.0, 10.0, 70.0]


def exported(change: Change, *flags: str) -> Callable[[Place], Answer]:
    """`prepare coco --write_masks` of training annotations that were changed."""

    def ask(place: Place) -> Answer:
        file = place.coco / "COCO/annotations/instances_train2014.json"
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))
        shutil.rmtree(place.coco / "COCO/SegmentationClass/train2014")
        return place.prepare_coco("--write_masks", *flags)

    return ask


def raw(change: Callable[[bytes], bytes]) -> Callable[[Place], Answer]:
    """The same of bytes."""

    def ask(place: Place) -> Answer:
        file = place.coco / "COCO/annotations/instances_train2014.json"
        file.write_bytes(change(file.read_bytes()))
        return place.prepare_coco()

    return ask


def first(**fields: Any) -> Change:
    """The first annotation with other fields; one that is `...` is taken away."""

    def change(content: dict[str, Any]) -> None:
        thing = content["annotations"][0]
        thing.update(fields)
        for name in [name for name, value in fields.items() if value is ...]:
            del thing[name]

    return change


def first_image(**fields: Any) -> Change:
    """The same of the first image."""

    def change(content: dict[str, Any]) -> None:
        content["images"][0].update(fields)
        for name in [name for name, value in fields.items() if value is ...]:
            del content["images"][0][name]

    return change


def every(change: Change) -> Change:
    """A change of each annotation."""
    return lambda content: [change(thing) for thing in content["annotations"]]


def as_texts(content: dict[str, Any]) -> None:
    """All numbers as text."""
    for thing in content["annotations"]:
        thing.update({name: str(thing[name]) for name in ("id", "image_id", "category_id", "area", "iscrowd")})
    for image in content["images"]:
        image.update({name: str(image[name]) for name in ("id", "width", "height")})


def as_floats(content: dict[str, Any]) -> None:
    """All numbers with a point."""
    for thing in content["annotations"]:
        thing.update({name: float(thing[name]) for name in ("id", "image_id", "category_id", "iscrowd")})
    for image in content["images"]:
        image.update({name: float(image[name]) for name in ("id", "width", "height")})


def counted_without_gaps(content: dict[str, Any], start: int = 1) -> None:
    """Categories 1 to 80, as exporters count them, with COCO's names."""
    number = {category: index for index, category in enumerate(CATEGORIES, start)}
    content["categories"] = [{"id": number[category], "name": name} for category, name in CATEGORIES.items()]
    for thing in content["annotations"]:
        thing["category_id"] = number[thing["category_id"] + 72]  # potted plant to the end: gaps before them


def moved(content: dict[str, Any]) -> None:
    """The same classes by COCO's own ids, with which the others are compared."""
    content["categories"] = [{"id": category, "name": name} for category, name in CATEGORIES.items()]
    for thing in content["annotations"]:
        thing["category_id"] += 72


def extra_fields(content: dict[str, Any]) -> None:
    """What annotation tools add."""
    content |= {"info": None, "licenses": [], "videos": [{"id": 1}]}
    for thing in content["annotations"]:
        thing |= {"attributes": {"occluded": False}, "keypoints": [], "score": 0.5, "rle": None}


def no_categories(content: dict[str, Any]) -> None:
    """No list of categories."""
    del content["categories"]


def far(value: float) -> Change:
    """A corner far away."""
    return first(segmentation=[[0, 0, value, 0, value, value]])


def run_lengths(size: list[Any], counts: Any) -> Change:
    """Run lengths in place of an outline."""
    return first(segmentation={"size": size, "counts": counts})


TAKEN: dict[str, Change] = {
    "as COCO's own": lambda content: None,
    "no iscrowd": every(lambda thing: thing.pop("iscrowd")),
    "no area": every(lambda thing: thing.pop("area")),
    "null for area and iscrowd 0": first(area=None),
    "area of 0": first(area=0),
    "no bbox": every(lambda thing: thing.pop("bbox")),
    "iscrowd true and false": first(iscrowd=False),
    "iscrowd as text": first(iscrowd="false"),
    "all numbers as text": as_texts,
    "all numbers with a point": as_floats,
    "a flat outline": every(lambda thing: thing.update(segmentation=thing["segmentation"][0])),
    "an outline of two parts": first(segmentation=[BOX, [80, 80, 90, 80, 90, 90]]),
    "corners as text": first(segmentation=[list(map(str, BOX))]),
    "corners a little outside": first(segmentation=[[-0.4, -0.4, 128.6, 0, 128.6, 128.9, 0, 128.2]]),
    "run lengths": run_lengths([128, 128], [128 * 20, 128 * 10, 128 * 98]),
    "run lengths with a size of floats": run_lengths([128.0, 128.0], [128 * 20, 128 * 10, 128 * 98]),
    "fields of other tools": extra_fields,
    "no categories": no_categories,
    "file_name with its folder": lambda content: [
        image.update(file_name=f"train2014/{image['file_name']}") for image in content["images"]
    ],
    "file_name without its ending": lambda content: [
        image.update(file_name=image["file_name"].removesuffix(".jpg")) for image in content["images"]
    ],
    "images that have no annotation": lambda content: content["images"].append(
        content["images"][0] | {"id": 777, "file_name": "COCO_train2014_000000000777.jpg"}
    ),
    "annotations in another order": lambda content: content["annotations"].reverse(),
    "categories counted 1 to 80": counted_without_gaps,
    "categories counted 0 to 79": lambda content: counted_without_gaps(content, 0),
    "categories with names in capitals": lambda content: [
        category.update(name=category["name"].upper()) for category in content["categories"]
    ],
}
NAMED: dict[str, tuple[Change, str]] = {
    "no segmentation": (first(segmentation=...), "annotation 1 in FILE has no segmentation"),
    "null for segmentation": (first(segmentation=None), "annotation 1 in FILE has no segmentation"),
    "an empty segmentation": (first(segmentation=[]), "annotation 1 in FILE has no segmentation"),
    "an empty outline": (first(segmentation=[[]]), "annotation 1 in FILE must have polygons of at least 3 corners"),
    "nested too deeply": (first(segmentation=[[BOX]]), "annotation 1 in FILE must have polygons of at least 3"),
    "two points": (first(segmentation=[[1, 2, 3, 4]]), "annotation 1 in FILE must have polygons of at least 3"),
    "an odd number of coordinates": (first(segmentation=[[*BOX, 1]]), "annotation 1 in FILE must have polygons"),
    "a text for segmentation": (first(segmentation="x"), "annotation 1 in FILE must have polygons or run lengths"),
    "points as objects": (first(segmentation=[{"x": 1, "y": 2}]), "annotation 1 in FILE must have polygons"),
    "pairs of coordinates": (first(segmentation=[[[1, 2], [3, 4], [5, 6]]]), "annotation 1 in FILE must have polygons"),
    "NaN": (far(math.nan), "annotation 1 in FILE has a corner at"),
    "infinity": (far(math.inf), "annotation 1 in FILE has a corner at"),
    "1e6": (far(1e6), "annotation 1 in FILE has a corner at"),
    "1e300": (far(1e300), "annotation 1 in FILE has a corner at"),
    "-1e6": (far(-1e6), "annotation 1 in FILE has a corner at"),
    "run lengths of another size": (run_lengths([5, 5], [25]), "annotation 1 in FILE has run lengths of size [5, 5]"),
    "run lengths, width first": (run_lengths([128, 64], [128 * 64]), "annotation 1 in FILE has run lengths of size"),
    "run lengths that do not add up": (run_lengths([128, 128], [7]), "has run lengths that do not add up"),
    "negative run lengths": (run_lengths([128, 128], [-1, 128 * 128 + 1]), "annotation 1 in FILE has run lengths that"),
    "huge run lengths": (run_lengths([128, 128], [10**18]), "annotation 1 in FILE has run lengths that do not add up"),
    "damaged run lengths as text": (run_lengths([128, 128], "zzzz"), "has run lengths that do not add up"),
    "no counts": (first(segmentation={"size": [128, 128]}), "annotation 1 in FILE has run lengths that do not add up"),
    "iscrowd 2": (first(iscrowd=2), "annotation 1 in FILE must have an iscrowd of 0 or 1, got 2"),
    "iscrowd null": (first(iscrowd=None), "annotation 1 in FILE must have a whole number as iscrowd, got nothing"),
    "a negative area": (first(area=-1), "annotation 1 in FILE must have an area of pixels, got -1"),
    "an area of NaN": (first(area=math.nan), "annotation 1 in FILE must have an area of pixels, got NaN"),
    "an image that is not there": (first(image_id=999), "annotation 1 in FILE is of image 999, which is none"),
    "an image's id as a list": (first(image_id=[1]), "annotation 1 in FILE must have a whole number as image_id"),
    "category 0": (first(category_id=0), "annotation 1 in FILE has category 0"),
    "category 12": (first(category_id=12), "annotation 1 in FILE has category 12, which is none of COCO's 80"),
    "half a category": (first(category_id=1.5), "annotation 1 in FILE must have a whole number as category_id"),
    "an id twice": (first(id=2), "annotation 2 in FILE is there twice"),
    "no id": (first(id=...), "annotation number 0 (from 0) in FILE must have a whole number as id, got nothing"),
    "no width": (first_image(width=...), "image 0 in FILE must have a whole number as width, got nothing"),
    "half a pixel": (first_image(width=128.5), "image 0 in FILE must have a whole number as width, got 128.5"),
    "a name with ..": (first_image(file_name="../../x.jpg"), "image 0 in FILE has the name '../../x"),
    "another set's name": (first_image(file_name="a.jpg"), "a COCO image is named like COCO_train2014_000000000009"),
    "categories of one's own": (
        lambda content: content.update(categories=[{"id": 1, "name": "forklift"}]),
        "category 1 in FILE is 'forklift', which is 'person' in COCO",
    ),
    "no annotations": (lambda content: content.update(annotations=[]), "have no image with an annotation"),
    "annotations are an object": (lambda content: content.update(annotations={}), "have no image with an annotation"),
    "a list of images by name": (lambda content: content.update(images={"a": {}}), "must be an object"),
}


def other_numbers_say_the_same(place: Place) -> None:
    """Categories counted otherwise give the labels that COCO's own ids give."""
    mine = place.coco_source().items("train")
    other = place.another()
    assert exported(moved)(other).code == 0
    assert mine == other.coco_source().items("train")


def named(change: Change) -> Callable[[Place], Answer]:
    """The answer with the annotations' file called FILE."""

    def ask(place: Place) -> Answer:
        code, text = exported(change)(place)
        return Answer(code, text.replace(str(place.coco / "COCO/annotations/instances_train2014.json"), "FILE"))

    return ask


SITUATIONS = [
    *(
        Situation(
            6,
            name,
            exported(change),
            "train: 60 images",
            check=other_numbers_say_the_same if name.startswith("categories counted") else None,
        )
        for name, change in TAKEN.items()
    ),
    *(Situation(6, name, named(change), wanted, True) for name, (change, wanted) in NAMED.items()),
    Situation(
        6, "bytes of latin-1", raw(lambda content: content.replace(b"person", b"p\xe9rson")), "is not UTF-8", True
    ),
    Situation(6, "UTF-8 with a mark", raw(lambda content: b"\xef\xbb\xbf" + content), "train: 60 images"),
    Situation(6, "UTF-16", raw(lambda content: content.decode().encode("utf-16")), "train: 60 images"),
    Situation(6, "cut", raw(lambda content: content[: len(content) // 2]), "are damaged: ", True),
    Situation(6, "nested without end", raw(lambda content: b"[" * 10**6), "are damaged: ", True),
    Situation(6, "empty", raw(lambda content: b""), "are damaged: ", True),
    Situation(
        6,
        "a number of 5000 digits",
        raw(lambda content: content.replace(b'"iscrowd": 0', b'"iscrowd": ' + b"9" * 5000, 1)),
        "are damaged: ",
        True,
    ),
    Situation(6, "null", raw(lambda content: b"null"), "are not COCO's instances", True),
]
