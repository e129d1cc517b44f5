"""Scores: counts over shards add up to the whole, and the CAM curve equals labels made at each threshold."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fsr.cam import strongest_class
from fsr.metrics import CamScores, ConfusionMatrix


@given(st.integers(2, 9), st.integers(0, 2**31), st.integers(1, 5))
@settings(max_examples=100, deadline=None)
def test_sharded_confusion_matrices_add_up_to_the_whole(classes, seed, shards):
    generator = torch.Generator().manual_seed(seed)
    ground_truth = torch.randint(0, classes + 1, (7, 5, 6), generator=generator)
    ground_truth[ground_truth == classes] = 255
    prediction = torch.randint(0, classes, ground_truth.shape, generator=generator)
    whole = ConfusionMatrix(classes)
    whole.add(prediction, ground_truth)
    parts = torch.zeros_like(whole.counts)
    for shard in range(shards):
        part = ConfusionMatrix(classes)
        for i in range(shard, len(ground_truth), shards):
            part.add(prediction[i], ground_truth[i])
        parts += part.counts
    assert torch.equal(parts, whole.counts)
    assert whole.counts.sum() == (ground_truth != 255).sum()


def test_a_perfect_prediction_scores_one_and_ignored_pixels_do_not_count():
    ground_truth = torch.tensor([[0, 1], [2, 255]])
    matrix = ConfusionMatrix(4)
    matrix.add(torch.tensor([[0, 1], [2, 3]]), ground_truth)
    assert matrix.miou() == matrix.pixel_accuracy() == 1
    assert matrix.iou()[3].isnan()


@given(st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_the_cam_curve_equals_the_scores_of_the_labels_at_each_threshold(seed):
    generator = torch.Generator().manual_seed(seed)
    cam = torch.rand(2, 3, 8, 8, generator=generator)
    cam[0, :, 0] = 0.5  # exactly on a threshold
    labels = torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    ground_truth = torch.randint(0, 4, (2, 8, 8), generator=generator)
    ground_truth[0, 0, 0] = 255
    scores = CamScores(4, 0.33)
    scores.add(*strongest_class(cam, labels), ground_truth)
    for threshold, miou in scores.curve().items():
        matrix = ConfusionMatrix(4)
        value, label = strongest_class(cam, labels)
        matrix.add(label.masked_fill(value <= threshold, 0), ground_truth)
        assert torch.equal(scores.at(threshold).counts, matrix.counts)
        assert miou == pytest.approx(matrix.miou())
