"""Each measure of errors against an independent one, of plain loops over pixels: on random small maps with ignored
pixels, absent classes, single pixels, nothing that counts."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fsr.boundaries import WIDTHS, BoundaryCounts, TrimapCounts, boundary_regions, boundary_width
from fsr.calibration import BINS, CalibrationCounts, confidence_of
from fsr.inference.error_counts import ErrorCounter
from fsr.inference.finisher import sparse
from fsr.inference.image_record import line_of, record_of
from fsr.inference.totals import Totals
from fsr.metrics import ConfusionMatrix, counted_by_image
from fsr.quality import label_quality, miou_conventions

SEEDS = st.integers(0, 2**31)
maps_of = settings(max_examples=200, deadline=None)


class Maps:
    """Some images of one size with labels of few classes in blocks, and how sure the labels are."""

    def __init__(self, seed):
        draw = np.random.default_rng(seed)
        self.classes = int(draw.integers(2, 7))
        self.shape = (int(draw.integers(1, 4)), int(draw.integers(1, 11)), int(draw.integers(1, 11)))
        self.truth, self.said = self.blocks(draw), self.blocks(draw)
        close = draw.random(self.shape) < draw.choice([0, 0.8])
        self.said[close] = self.truth[close]
        open_share = draw.choice([0, 0, 0.2, 1])
        self.truth[draw.random(self.shape) < open_share] = 255
        self.said[self.said == 255] = 0
        self.sure = draw.choice([draw.random(self.shape), draw.integers(1, 31, self.shape) / 30]).astype(np.float32)

    def blocks(self, draw):
        side = int(draw.integers(1, 5))
        images, *sides = self.shape
        small = draw.integers(0, draw.integers(1, self.classes + 1), (images, *(-(-size // side) for size in sides)))
        whole = small.repeat(side, axis=1).repeat(side, axis=2)
        return whole[:, : self.shape[1], : self.shape[2]].astype(np.uint8)

    def tensors(self):
        return (torch.from_numpy(array) for array in (self.said, self.truth, self.sure))


def nearest(at, others):
    """Distance to the nearest place that is marked, of all of them."""
    rows, columns = others.nonzero()
    return int(np.maximum(abs(rows - at[0]), abs(columns - at[1])).min()) if len(rows) else 1000


def region(labels, known, class_id, width):
    """The pixels of a class that are within a width of its contour, one after the other."""
    found, (height, across) = set(), labels.shape
    for at in np.argwhere(known & (labels == class_id)).tolist():
        to_edge = min(at[0], at[1], height - 1 - at[0], across - 1 - at[1]) + 1
        if min(to_edge, nearest(at, known & (labels != class_id))) <= width:
            found.add(tuple(at))
    return found


def plain_miou(pairs, classes):
    """By sets of pixels: pairs of ground truth and prediction."""
    ious = [
        sum(t == s == c for t, s in pairs) / sum(c in (t, s) for t, s in pairs)
        for c in range(classes)
        if any(t == c for t, _ in pairs)
    ]
    return sum(ious) / len(ious) if ious else None


@given(SEEDS, st.integers(1, 6))
@maps_of
def test_boundary_regions_are_those_of_a_distance_computed_by_brute_force(seed, width):
    maps = Maps(seed)
    said, truth, _ = maps.tensors()
    near = boundary_regions(said, truth != 255, width)
    for image in range(len(said)):
        known = maps.truth[image] != 255
        regions = [region(maps.said[image], known, class_id, width) for class_id in range(maps.classes)]
        assert {tuple(at) for at in near[image].nonzero().tolist()} == set().union(*regions)


@given(SEEDS, st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_without_ignored_pixels_they_are_what_erosion_of_each_class_takes_away(seed, width):
    """The published definition: a mask, padded by zeros, less the mask eroded `width` times by a 3 x 3 square."""
    maps = Maps(seed)
    said, _, _ = maps.tensors()
    near = boundary_regions(said, torch.ones_like(said, dtype=torch.bool), width).numpy()
    for image, labels in zip(near, maps.said, strict=True):
        for class_id in range(maps.classes):
            mask = np.pad(labels == class_id, 1)
            eroded = mask
            for _ in range(width):
                padded = np.pad(eroded, 1)
                shifts = [(i, j) for i in range(3) for j in range(3)]
                eroded = np.all([padded[i : i + mask.shape[0], j : j + mask.shape[1]] for i, j in shifts], axis=0)
            assert np.array_equal(image & (labels == class_id), (mask & ~eroded)[1:-1, 1:-1])


def test_the_width_is_two_percent_of_the_diagonal():
    assert [boundary_width(375, 500), boundary_width(500, 334), boundary_width(1, 1)] == [12, 12, 1]


@given(SEEDS)
@maps_of
def test_boundary_iou_is_that_of_the_regions_of_each_class(seed):
    maps = Maps(seed)
    said, truth, _ = maps.tensors()
    counts = BoundaryCounts(maps.classes)
    entries = counts.entries(counts.classes(said, truth), counts.classes(truth, truth), truth)
    counts.counts += counted_by_image(entries, counts.counts).sum(0).view_as(counts.counts)
    both, either, present = np.zeros(maps.classes), np.zeros(maps.classes), np.zeros(maps.classes, bool)
    for labels, true in zip(maps.said, maps.truth, strict=True):
        width = max(1, round(0.02 * np.hypot(*true.shape)))
        for class_id in range(maps.classes):
            ours, theirs = (region(of, true != 255, class_id, width) for of in (labels, true))
            both[class_id] += len(ours & theirs)
            either[class_id] += len(ours | theirs)
            present[class_id] |= bool(theirs)
    ious = [b / e if e else None for b, e in zip(both, either, strict=True)]
    measured = counts.measures()
    assert measured["iou"] == pytest.approx(ious)
    expected = [iou for iou, there in zip(ious, present, strict=True) if there]
    assert measured["miou"] == (pytest.approx(sum(expected) / len(expected)) if expected else None)


def test_a_prediction_that_is_right_wherever_it_is_judged_scores_one():
    truth = torch.zeros(1, 300, 400, dtype=torch.uint8)
    truth[:, 98:202, 98:202] = 255  # VOC's rim
    truth[:, 103:197, 103:197] = 1
    said = truth.clone()
    said[said == 255] = 0
    said[:, 100:200, 100:200] = 1
    counts = BoundaryCounts(2)
    entries = counts.entries(counts.classes(said, truth), counts.classes(truth, truth), truth)
    counts.counts += counted_by_image(entries, counts.counts)[0].view_as(counts.counts)
    assert counts.measures() == {"miou": 1.0, "iou": [1.0, 1.0]}


@given(SEEDS)
@maps_of
def test_the_trimap_is_the_miou_of_the_pixels_within_each_distance(seed):
    maps = Maps(seed)
    said, truth, _ = maps.tensors()
    counts = TrimapCounts(maps.classes)
    entries = counts.entries(ConfusionMatrix(maps.classes).entries(said, truth), counts.rings(truth))
    counts.counts += counted_by_image(entries, counts.counts).sum(0).view_as(counts.counts)
    pixels = []  # ground truth, prediction, distance from another ground truth
    for labels, true in zip(maps.said, maps.truth, strict=True):
        for at in map(tuple, np.argwhere(true != 255)):
            pixels.append((true[at], labels[at], nearest(at, true != true[at])))
    for width, miou in counts.curve():
        expected = plain_miou([(t, s) for t, s, far in pixels if far <= width], maps.classes)
        assert miou == (expected if expected is None else pytest.approx(expected)), width
    matrix = ConfusionMatrix(maps.classes)
    matrix.add(said, truth)
    assert torch.equal(counts.counts.sum(0), matrix.counts)


def test_a_trimap_grows_by_its_widths():
    truth = torch.zeros(1, 3, 100, dtype=torch.uint8)
    truth[..., 50:] = 1
    rings = TrimapCounts(2).rings(truth)
    assert [int((rings[0, 0] <= ring).sum()) for ring in range(len(WIDTHS))] == [2 * width for width in WIDTHS]


@given(SEEDS)
@maps_of
def test_calibration_is_that_of_a_plain_loop(seed):
    maps = Maps(seed)
    said, truth, sure = maps.tensors()
    counts = CalibrationCounts()
    counts.counts += counts.of_images(sure, said, truth).sum(0).view_as(counts.counts)
    pixels = [
        (confidence, said_ == true)
        for confidence, said_, true in zip(maps.sure.flat, maps.said.flat, maps.truth.flat, strict=True)
        if true != 255
    ]
    error, ends = 0.0, (np.arange(BINS + 1) / BINS).astype(np.float32)
    measured = counts.measures()
    for low, high, bin_ in zip(ends, ends[1:], measured["bins"], strict=False):
        inside = [(confidence, right) for confidence, right in pixels if low < confidence <= high]
        assert (bin_["from"], bin_["to"], bin_["pixels"]) == (pytest.approx(low), pytest.approx(high), len(inside))
        if inside:
            accuracy = sum(right for _, right in inside) / len(inside)
            confidence = sum(float(confidence) for confidence, _ in inside) / len(inside)
            assert (bin_["accuracy"], bin_["confidence"]) == pytest.approx((accuracy, confidence), abs=1e-6)
            error += len(inside) / len(pixels) * abs(accuracy - confidence)
        else:
            assert bin_["accuracy"] is None and bin_["confidence"] is None
    assert measured["ece"] == (pytest.approx(error, abs=1e-6) if pixels else None)


def test_confidence_is_the_largest_probability():
    logits = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0)) * 4
    logits[0, 2] = 200
    expected = logits.double().softmax(1).amax(1)
    assert torch.allclose(confidence_of(logits, logits.amax(1)).double(), expected, atol=1e-6)
    assert confidence_of(logits, logits.amax(1)).max() <= 1


def records(maps):
    """The records of an inference with these labels, as they are read from a journal."""
    said, truth, sure = maps.tensors()
    matrix = ConfusionMatrix(maps.classes)
    pairs = matrix.entries(said, truth)
    counts = counted_by_image(pairs, matrix.counts)
    found = ErrorCounter(maps.classes)({"segmentation": said}, {"segmentation": pairs}, {"segmentation": sure}, truth)
    errors = found["segmentation"]
    for image in range(len(said)):
        record = {
            "name": f"n{image}",
            "iou": None,
            "classes": [],
            "counts": {"segmentation": sparse(counts[image])},
            "errors": {"segmentation": {name: sparse(found[image]) for name, found in errors.items()}},
        }
        yield record_of(line_of(record).rstrip(), "")


@given(SEEDS)
@settings(max_examples=40, deadline=None)
def test_images_counted_alone_and_in_any_order_tell_the_same(seed):
    maps = Maps(seed)
    together = [*records(maps)]
    alone = []
    for image in reversed(range(len(maps.truth))):
        one = Maps(seed)
        one.truth, one.said, one.sure = (of[image : image + 1] for of in (maps.truth, maps.said, maps.sure))
        alone += [record | {"name": f"n{image}"} for record in records(one)]
    assert sorted(alone, key=lambda record: record["name"]) == together
    whole, shards = (Totals(maps.classes, 0.5).add(found).error_scores() for found in (together, alone))
    assert whole == shards
    json.dumps(whole, allow_nan=False)


@given(seed=SEEDS)
@maps_of
def test_what_an_image_shows_divides_the_scores_as_loops_do(seed, small_sizes):
    maps = Maps(seed)
    told = Totals(maps.classes, 0.5).add(records(maps)).error_scores()["segmentation"]
    images = [
        [(t, s) for t, s in zip(true.flat, labels.flat, strict=True) if t != 255]
        for true, labels in zip(maps.truth, maps.said, strict=True)
    ]
    present = [{int(t) for t, _ in pixels} for pixels in images]
    for row in told["by_number_of_classes"]:
        chosen = [
            pixels
            for pixels, classes in zip(images, present, strict=True)
            if classes and min(4, len(classes - {0})) == row["classes"]
        ]
        expected = plain_miou([pair for pixels in chosen for pair in pixels], maps.classes)
        assert row["images"] == len(chosen)
        assert row["miou"] == (expected if expected is None else pytest.approx(expected))
    for size in told["by_size"].values():
        low, high = size["from"], size["to"] or float("inf")
        ious = []
        for class_id in range(1, maps.classes):
            chosen = [
                p for p in images if low <= sum(t == class_id for t, _ in p) < high and class_id in {t for t, _ in p}
            ]
            pairs = [pair for pixels in chosen for pair in pixels if class_id in pair]
            ious.append(sum(t == s for t, s in pairs) / len(pairs) if pairs else None)
        assert size["iou"] == pytest.approx([None, *ious])
        known = [iou for iou in ious if iou is not None]
        assert size["miou"] == (pytest.approx(sum(known) / len(known)) if known else None)
    for row in told["co_occurrence"]:
        class_id = row["class"]
        wrong = [(t, image) for image, pixels in enumerate(images) for t, s in pixels if s == class_id != t]
        said = sum(s == class_id for pixels in images for _, s in pixels)
        assert row["false_positives"] == len(wrong)
        assert row["share"] == (pytest.approx(len(wrong) / said) if said else None)
        assert row["images"] == sum(class_id in classes for classes in present)
        on = {c: sum(t == c for t, _ in wrong) for c in range(maps.classes)}
        beside = {c: sum(c in present[image] for _, image in wrong) for c in range(1, maps.classes) if c != class_id}
        for shares, counted in ((row["on"], on), (row["with"], beside)):
            expected = sorted(((c, n / len(wrong)) for c, n in counted.items() if n), key=lambda pair: -pair[1])[:3]
            assert [(share["class"], share["share"]) for share in shares] == [
                (c, pytest.approx(n)) for c, n in expected
            ]
        for share in row["with"]:
            both = sum({class_id, share["class"]} <= classes for classes in present)
            assert share["images"] == both
            assert share["usual"] == (pytest.approx(both / row["images"]) if row["images"] else None)


@pytest.fixture(scope="module")
def small_sizes():
    """Sizes that small maps reach."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fsr.breakdown.SIZES", {"small": (0, 8), "medium": (8, 24), "large": (24, None)})
        yield


@given(SEEDS, st.sampled_from([0, 0.3]))
@maps_of
def test_mious_as_others_count_them_are_those_of_sets_of_pixels(seed, unlabelled):
    maps = Maps(seed)
    maps.said[np.random.default_rng(seed).random(maps.shape) < unlabelled] = 255
    said, truth, _ = maps.tensors()
    matrix, everything = ConfusionMatrix(maps.classes), ConfusionMatrix(maps.classes)
    matrix.add(said, truth)
    everything.add(torch.zeros_like(said), truth)
    told = label_quality(matrix) | miou_conventions(matrix, everything.counts.sum(1) - matrix.counts.sum(1))
    pairs = [(t, s) for t, s in zip(maps.truth.flat, maps.said.flat, strict=True) if t != 255]
    labelled = [(t, s) for t, s in pairs if s != 255]
    among = {c for pair in labelled for c in pair}
    ious = [sum(t == s == c for t, s in labelled) / sum(c in pair for pair in labelled) for c in among]
    expected = {
        "miou": plain_miou(labelled, maps.classes),
        "miou_predicted_too": sum(ious) / len(ious) if ious else None,
        "miou_unlabelled_missed": plain_miou(pairs, maps.classes),
    }
    for name, value in expected.items():
        assert told[name] == (value if value is None else pytest.approx(value)), name
