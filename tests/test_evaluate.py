"""The scores of a network, counted over the images' own classes alone."""

import dataclasses

import torch
from tiny import TINY

from fsr import evaluate
from fsr.cam import multi_scale_cams, strongest_class
from fsr.config import synthetic
from fsr.metrics import CamScores
from fsr.models.network import Network


def test_cams_are_made_of_an_image_s_own_classes_and_score_as_those_of_all(monkeypatch):
    config = dataclasses.replace(synthetic(), **TINY)
    network = Network(config).eval()
    images, labels = torch.randn(3, 3, 32, 40), torch.zeros(3, 8)
    labels[0, [1, 6]] = labels[1, 4] = 1  # the last image has no class
    ground_truth = torch.randint(0, 9, (3, 32, 40))
    made = []

    def watched(*arguments, **options):
        made.append(multi_scale_cams(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(evaluate, "multi_scale_cams", watched)
    scores = evaluate.Scores(config)
    scores.add(network, images, ground_truth, labels)
    assert [cam.shape for cam in made[0]] == [(3, 2, 32, 40)] * 2
    for counts, cam in zip(
        (scores.cam, scores.aux_cam), multi_scale_cams(network, images, config.cam_scales), strict=True
    ):
        expected = CamScores(config.num_classes, config.bkg_threshold)
        expected.add(*strongest_class(cam, labels), ground_truth)
        for threshold in counts.thresholds:
            assert torch.equal(counts.at(threshold).counts, expected.at(threshold).counts)
