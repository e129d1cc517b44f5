"""The splits of the synthetic set: the segmentation split as it always was, and the pretraining split unlike it."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest
from tiny import source_of

from fsr.config import synthetic
from fsr.data.looks import PRETRAINING, SEGMENTATION
from fsr.data.scenes import draw_scene
from fsr.data.synthetic import synthesise
from fsr.errors import UserError


def digest(seed, count):
    """Hash of pictures and ground truth, which NumPy and Pillow decide."""
    found = hashlib.sha256()
    for index in range(count):
        scene = draw_scene(seed, index)
        found.update(scene.pixels.tobytes() + scene.ground_truth.tobytes())
        for thing in scene.things:
            found.update(repr((thing.class_id, thing.area, thing.box)).encode() + thing.outline.tobytes())
    return found.hexdigest()[:16]


def test_the_segmentation_split_is_the_set_of_before():
    assert digest(0, 40) == "c49498658bdd2ee2"


def test_no_picture_of_one_split_has_the_draws_of_the_other():
    for index in range(5):
        first, second = (
            draw_scene(0, index, split).pixels[:8, :8].astype(float) for split in (SEGMENTATION, PRETRAINING)
        )
        assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.9


def test_the_splits_share_no_shape_no_pattern_and_no_hue():
    hues = [{round(hue, 3) for look in split.looks for hue in look.hues} for split in (SEGMENTATION, PRETRAINING)]
    gaps = [abs((a - b + 0.5) % 1 - 0.5) for a in hues[0] for b in hues[1]]
    assert min(gaps) > 0.05  # each object's own hue is drawn from .02 to either side
    markers = [look.marker_hue for look in SEGMENTATION.looks]
    assert all(look.marker_hue is None for look in PRETRAINING.looks)
    assert min(abs((a - b + 0.5) % 1 - 0.5) for a in markers for b in hues[1]) > 0.05
    for old in SEGMENTATION.shapes:
        for new in PRETRAINING.shapes:
            turned = [np.roll(new / np.sqrt((new**2).mean()), turn) for turn in range(len(new))]
            assert min(abs(old / np.sqrt((old**2).mean()) - one).max() for one in turned) > 0.05
    x, y = (axis.ravel() - 32 for axis in np.mgrid[0:64, 0:64].astype(float))
    for look in PRETRAINING.looks:
        found = look.pattern(x, y, 0.0, 64.0)
        assert 0.25 < found.mean() < 0.75
        for other in SEGMENTATION.looks:
            alike = max(abs(np.corrcoef(found, other.pattern(x, y, t, 64.0))[0, 1]) for t in np.arange(0, 3, 0.1))
            assert alike < 0.6


def test_a_half_of_a_body_fits_two_classes_and_the_whole_body_one():
    kinds = [(id(look.pattern), frozenset(look.hues)) for look in PRETRAINING.looks]
    assert len(set(kinds)) == len(kinds) == 20
    halves = [(pattern, hue) for pattern, hues in kinds for hue in hues]
    assert {halves.count(half) for half in halves} == {2}


def test_all_classes_are_drawn_and_largely_visible():
    counts = np.zeros(21, int)
    for index in range(150):
        scene = draw_scene(7, index, PRETRAINING)
        for thing in scene.things:
            counts[thing.class_id] += 1
            assert (scene.ground_truth == thing.class_id).sum() > 0.4 * thing.area
    assert counts[0] == 0
    assert counts[1:].min() > 4


@pytest.mark.parametrize("format", ["voc", "coco"])
def test_the_pretraining_split_is_a_data_set_of_20_classes(tmp_path, format):
    synthesise(tmp_path, format, images=30, split="pretraining")
    dataset = "coco" if format == "coco" else "synthetic"
    source = source_of(dataclasses.replace(synthetic(), dataset=dataset, data_folder=tmp_path, num_classes=21))
    assert max(max(item.classes) for item in source.items("train")) > 8
    root = tmp_path / ("COCO" if format == "coco" else "VOCdevkit/VOC2012")
    assert json.loads((root / "synthetic.json").read_text())["split"] == "pretraining"


def test_a_folder_with_the_other_split_is_refused(tmp_path):
    synthesise(tmp_path, images=2)
    with pytest.raises(UserError, match=r"of images 2, seed 0, design 1, not .* design 1, split pretraining; choose"):
        synthesise(tmp_path, images=2, split="pretraining")
