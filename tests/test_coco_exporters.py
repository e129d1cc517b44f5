"""COCO's instances as exporters write them: one meaning is taken, anything else is named by its image or annotation.

What pycocotools would make gigabytes of, or end the process of, never reaches it.
"""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from fsr.data.coco import CocoSource
from fsr.data.coco_annotations import draw_mask, read_annotations
from fsr.data.prepare import main as prepare
from fsr.data.synthetic import synthesise
from fsr.errors import UserError

NAME = "COCO_train2014_000000000001"
SQUARE = [10, 20, 40, 20, 40, 50, 10, 50]
INSIDE = np.zeros((64, 80), bool)
INSIDE[20:50, 10:40] = True
COMPRESSED = rle.encode(np.asfortranarray(INSIDE.astype(np.uint8)))["counts"].decode()
COUNTS = [10 * 64 + 20, *[30, 34] * 29, 30, 5120 - (39 * 64 + 50)]


def content(annotation=None, image=None, **more) -> dict:
    """One image of 80 × 64 pixels with a square cat (17), changed as said; None takes a field away."""
    one = {"id": 7, "image_id": 1, "category_id": 17, "iscrowd": 0, "area": 900, "segmentation": [SQUARE]}
    picture = {"id": 1, "file_name": f"{NAME}.jpg", "width": 80, "height": 64}
    one, picture = one | (annotation or {}), picture | (image or {})
    made = {"images": [picture], "annotations": [one], "categories": [{"id": 17, "name": "cat"}]} | more
    for part in (one, picture, made):
        for field in [field for field, value in part.items() if value is ...]:
            del part[field]
    return made


@pytest.fixture
def source(tmp_path):
    (tmp_path / "COCO/annotations").mkdir(parents=True)
    return CocoSource(tmp_path)


def masks(source, made, raw=None) -> np.ndarray | str:
    """The mask of the image, or the sentence."""
    file = source.annotation_file("train")
    file.write_bytes(json.dumps(made).encode() if raw is None else raw)
    try:
        (image,) = read_annotations(source, "train").values()
        assert image.classes == (16,)
        return draw_mask(image)
    except UserError as error:
        assert "\n" not in str(error) and str(file) in str(error) and len(str(error)) < 500
        return str(error).replace(str(file), "FILE")


SAME = {
    "as COCO": {},
    "no iscrowd": {"annotation": {"iscrowd": ...}},
    "no area": {"annotation": {"area": ...}},
    "null area": {"annotation": {"area": None}},
    "texts": {
        "annotation": {"id": "7", "image_id": "1", "category_id": "17", "iscrowd": "0", "area": "900.5"},
        "image": {"id": "1", "width": "80", "height": "64"},
    },
    "points": {
        "annotation": {"id": 7.0, "image_id": 1.0, "category_id": 17.0, "iscrowd": 0.0},
        "image": {"id": 1.0, "width": 80.0, "height": 64.0},
    },
    "flags": {"annotation": {"iscrowd": False}},
    "flags as texts": {"annotation": {"iscrowd": "False"}},
    "a flat polygon": {"annotation": {"segmentation": SQUARE}},
    "a polygon of texts": {"annotation": {"segmentation": [[*map(str, SQUARE)]]}},
    "two polygons": {"annotation": {"segmentation": [SQUARE, SQUARE[:6]]}},
    "run lengths": {"annotation": {"segmentation": {"size": [64, 80], "counts": COUNTS}}},
    "compressed": {"annotation": {"segmentation": {"size": [64, 80], "counts": COMPRESSED}}},
    "a float size": {"annotation": {"segmentation": {"size": [64.0, 80.0], "counts": COMPRESSED}}},
    "no categories": {"categories": ...},
    "null categories": {"categories": None},
}


@pytest.mark.parametrize("what", SAME)
def test_what_means_the_same_is_the_same(source, what):
    mask = masks(source, content(**SAME[what]))
    assert isinstance(mask, np.ndarray), mask
    assert np.array_equal(mask, 16 * INSIDE)


def test_a_json_of_any_unicode_is_read(source):
    for encoding in ("utf-8-sig", "utf-16", "utf-32"):
        assert np.array_equal(masks(source, None, json.dumps(content()).encode(encoding)), 16 * INSIDE)


def test_a_crowd_is_ignored_in_any_spelling(source):
    for crowd in (1, True, "1", "true", 1.0):
        assert np.array_equal(masks(source, content({"iscrowd": crowd})), 255 * INSIDE)


def test_a_polygon_may_reach_over_the_border(source):
    mask = masks(source, content({"segmentation": [[-30, -30, 120, -30, 120, 32, -30, 32]]}))
    assert (mask[:31] == 16).all() and (mask[33:] == 0).all()


def segmentation(value) -> dict:
    return content({"segmentation": value})


BAD = {
    "no segmentation": (segmentation(...), "annotation 7 in FILE has no segmentation"),
    "null": (segmentation(None), "annotation 7 in FILE has no segmentation"),
    "empty": (segmentation([]), "annotation 7 in FILE has no segmentation"),
    "empty object": (segmentation({}), "annotation 7 in FILE has no segmentation"),
    "an empty polygon": (
        segmentation([[]]),
        "annotation 7 in FILE must have polygons of at least 3 corners x, y, got []",
    ),
    "two points": (segmentation([[1, 2, 3, 4]]), "at least 3 corners x, y, got [1, 2, 3, 4]"),
    "one good, one of two points": (segmentation([SQUARE, [1, 2, 3, 4]]), "at least 3 corners"),
    "odd": (segmentation([SQUARE[:7]]), "at least 3 corners"),
    "pairs": (segmentation([[[1, 2], [3, 4], [5, 6]]]), "at least 3 corners"),
    "words": (segmentation([["a"] * 6]), "at least 3 corners"),
    "nulls": (segmentation([[None] * 6]), "at least 3 corners"),
    "a text": (segmentation("x"), "must have polygons or run lengths as segmentation"),
    "a number": (segmentation(7), "must have polygons or run lengths as segmentation"),
    "far": (segmentation([[0, 0, 1e6, 0, 1e6, 1e6]]), "annotation 7 in FILE has a corner at 1e+06, 0, far outside"),
    "farther": (segmentation([[0, 0, 1e18, 0, 1e18, -1e18]]), "far outside its image of 80 x 64 pixels"),
    "NaN": (segmentation([[0, 0, float("nan"), 0, 9, 9]]), "has a corner at nan, 0, far outside"),
    "infinite": (segmentation([[0, 0, float("inf"), 0, 9, 9]]), "has a corner at inf, 0"),
    "endless": (segmentation([[0, 0, 80, 64] * 50_000]), "has an outline of 100000 corners that is longer than any"),
    "run lengths of another size": (
        segmentation({"size": [80, 64], "counts": COUNTS}),
        "annotation 7 in FILE has run lengths of size [80, 64], but its image [64, 80]",
    ),
    "run lengths without size": (segmentation({"counts": COUNTS}), "has run lengths of size nothing"),
    "too short": (segmentation({"size": [64, 80], "counts": COUNTS[:-1]}), "do not add up to its image's 5120 pixels"),
    "negative": (segmentation({"size": [64, 80], "counts": [-1, 5121]}), "do not add up"),
    "no counts": (segmentation({"size": [64, 80]}), "do not add up"),
    "cut": (segmentation({"size": [64, 80], "counts": COMPRESSED[:-2]}), "do not add up"),
    "other signs": (segmentation({"size": [64, 80], "counts": "ÿ\x01~"}), "do not add up"),
    "never ending": (segmentation({"size": [64, 80], "counts": "o" * 99}), "do not add up"),
    "an odd flag": (content({"iscrowd": 2}), "annotation 7 in FILE must have an iscrowd of 0 or 1, got 2"),
    "a word as flag": (content({"iscrowd": "maybe"}), "annotation 7 in FILE must have a whole number as iscrowd"),
    "a negative area": (content({"area": -1}), "annotation 7 in FILE must have an area of pixels, got -1"),
    "an area of NaN": (content({"area": float("nan")}), "must have an area of pixels, got NaN"),
    "no id": (content({"id": ...}), "annotation number 0 (from 0) in FILE must have a whole number as id, got nothing"),
    "half an id": (content({"id": 1.5}), "must have a whole number as id, got 1.5"),
    "a flag as id": (content({"id": True}), "must have a whole number as id, got true"),
    "no image": (content({"image_id": 2}), "annotation 7 in FILE is of image 2, which is none of the file's"),
    "no image id": (content({"image_id": ...}), "annotation 7 in FILE must have a whole number as image_id"),
    "no category": (content({"category_id": ...}), "annotation 7 in FILE must have a whole number as category_id"),
    "an unknown category": (
        content({"category_id": 12}),
        "annotation 7 in FILE has category 12, which is none of COCO's",
    ),
    "other categories": (
        content(categories=[{"id": 17, "name": "forklift"}]),
        "category 17 in FILE is 'forklift', which is 'cat' in COCO",
    ),
    "an id twice": (
        content() | {"annotations": content()["annotations"] * 2},
        "annotation 7 in FILE is there twice",
    ),
    "an image twice": (content() | {"images": content()["images"] * 2}, "image 1 in FILE is there twice"),
    "a name twice": (
        content() | {"images": [*content()["images"], *content(image={"id": 2})["images"]]},
        f"image 2 in FILE has the name '{NAME}', which another image has, too",
    ),
    "no name": (content(image={"file_name": ...}), "image 1 in FILE must have a file_name, got nothing"),
    "half a pixel": (content(image={"width": 80.5}), "image 1 in FILE must have a whole number as width, got 80.5"),
    "no size": (content(image={"width": ...}), "image 1 in FILE must have a whole number as width, got nothing"),
    "no pixels": (content(image={"width": 0}), "image 1 in FILE is 0 x 64 pixels"),
    "10¹² pixels": (content(image={"width": 10**6, "height": 10**6}), "image 1 in FILE is 1000000 x 1000000 pixels"),
    "a huge id": (content({"image_id": 10**400}), "must have a whole number as image_id"),
    "an annotation that is none": (content(annotations=[5]), "annotation number 0 (from 0) in FILE must be an object"),
    "annotations that are none": (content(annotations=5), "annotations FILE are not COCO's instances"),
    "images that are none": (content(images={"1": 2}), "image number 0 (from 0) in FILE must be an object"),
    "no annotation": (content(annotations=[]), "annotations FILE have no image with an annotation"),
}


@pytest.mark.parametrize("what", BAD)
def test_anything_else_is_named(source, what):
    made, sentence = BAD[what]
    told = masks(source, made)
    assert isinstance(told, str) and sentence in told


RAW = {
    "latin-1": (json.dumps(content(), ensure_ascii=False).replace("cat", "c\xe4t").encode("latin-1"), "is not UTF-8"),
    "nested": (b'{"annotations": ' + b"[" * 100_000, "annotations FILE are damaged: "),
    "a number without end": (b'{"annotations": [' + b"1" * 5000 + b"]}", "annotations FILE are damaged: "),
    "zeros": (bytes(99), "annotations FILE are damaged: "),
    "half": (json.dumps(content()).encode()[:200], "annotations FILE are damaged: "),
}


@pytest.mark.parametrize("what", RAW)
def test_bytes_that_are_no_json_are_one_sentence(source, what):
    raw, sentence = RAW[what]
    assert sentence in masks(source, None, raw)


def test_labels_need_no_segmentation(source):
    file = source.annotation_file("train")
    file.write_text(json.dumps(segmentation(None)))
    assert read_annotations(source, "train")[NAME].classes == (16,)


HOSTILE = """
import json, random, sys
from pathlib import Path
from fsr.data.coco import CocoSource
from fsr.data.coco_annotations import draw_mask, read_annotations
from fsr.errors import UserError

source, good, made = CocoSource(Path(sys.argv[1])), sys.argv[2], json.loads(sys.argv[3])
FAR = [0, 5, 79, -1e3, 1e6, 1e12, float("nan"), float("inf"), 1e308]
told = 0
for seed in range(2000):
    draw = random.Random(seed)
    length = draw.randint(0, 40)
    signs = [draw.randint(48, 111) if draw.random() < 0.9 else draw.randint(1, 300) for _ in range(length)]
    place = draw.randrange(len(good))
    counts = draw.choice(["".join(map(chr, signs)), good[:place] + chr(draw.randint(48, 111)) + good[place + 1 :]])
    runs, polygon = {"size": [64, 80], "counts": counts}, [draw.choice(FAR) for _ in range(length)]
    made["annotations"][0]["segmentation"] = draw.choice([runs, [polygon]])
    source.annotation_file("train").write_text(json.dumps(made))
    try:
        (image,) = read_annotations(source, "train").values()
        assert set(draw_mask(image).flat) <= {0, 16}
    except UserError:
        told += 1
print(f"{2000 - told} drawn, {told} told")
"""


@pytest.mark.slow
def test_no_segmentation_ends_the_process_or_takes_its_memory(tmp_path):
    """2 000 damaged run lengths and far polygons, in a process of its own with 3 GB."""
    (tmp_path / "COCO/annotations").mkdir(parents=True)
    arguments = [sys.executable, "-c", HOSTILE, str(tmp_path), COMPRESSED, json.dumps(content())]
    limited = ["bash", "-c", 'ulimit -v 3000000; exec "$@"', "bash", *arguments]
    answer = subprocess.run(limited, capture_output=True, text=True, timeout=300)
    assert answer.returncode == 0, answer.stderr[-2000:]
    print(answer.stdout)
    assert int(answer.stdout.split()[2]) > 1500


def test_prepare_names_the_annotation_without_traceback(tmp_path, capsys):
    synthesise(tmp_path, "coco", images=3, seed=1)
    source = CocoSource(tmp_path)
    made = json.loads(source.annotation_file("train").read_text())
    made["annotations"][2]["segmentation"] = [[0, 0, 1e6, 0, 1e6, 1e6]]
    source.annotation_file("train").write_text(json.dumps(made))
    name = next(image["file_name"] for image in made["images"] if image["id"] == made["annotations"][2]["image_id"])
    mask = source.mask_file(name.removesuffix(".jpg"), "train")
    before = np.array(Image.open(mask))
    mask.unlink()
    with pytest.raises(SystemExit) as end:
        prepare(["coco", str(tmp_path), "--write_masks"])
    told = capsys.readouterr().err
    assert end.value.code == 2 and "Traceback" not in told and not mask.exists() and before.size
    assert f"error: annotation {made['annotations'][2]['id']} in {source.annotation_file('train')} has a corner" in told
