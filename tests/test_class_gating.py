"""Single scale and class gating: columns of their own, from the same pass, that leave all others as they are."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from inference import complaint, infer, read_labels
from PIL import Image
from reference_inference import MEAN, STD, reference_answer

from fsr.checkpoint import load_network
from fsr.data.source import open_source
from fsr.inference.class_gating import gated
from fsr.inference.config import InferConfig, parse
from fsr.inference.journal import Results

FLAGS = ("--num_classes", 9, "--threads", 1)
BOTH = ("--single_scale", "--class_gating")


def gated_one_by_one(logits, class_logits, threshold):
    """The rule, pixel by pixel."""
    allowed = logits.copy()
    for image, scores in enumerate(class_logits):
        kept = [class_id for class_id, score in enumerate(scores, 1) if score > threshold]
        for class_id in range(1, logits.shape[1]):
            if kept and class_id not in kept:
                allowed[image, class_id] = -np.inf
    return allowed


@pytest.mark.parametrize("threshold", [0.0, -0.7, 5.0])
def test_the_rule_is_that_of_loops_over_images_and_classes(threshold):
    draw = np.random.default_rng(1)
    for _ in range(50):
        images, classes = draw.integers(1, 4), draw.integers(1, 6)
        logits = draw.normal(size=(images, classes + 1, 3, 2)).astype(np.float32)
        scores = draw.normal(size=(images, classes)).round(1).astype(np.float32)  # some are the threshold itself
        found = gated(torch.from_numpy(logits), torch.from_numpy(scores), threshold).numpy()
        assert np.array_equal(found, gated_one_by_one(logits, scores, np.float32(threshold)))
        assert np.array_equal(found[:, 0], logits[:, 0])


def test_both_columns_are_those_of_the_network_asked_by_hand_and_the_others_stay(voc, checkpoint, tmp_path):
    plain = infer("voc", checkpoint, voc, tmp_path / "plain", *FLAGS)
    found = infer("voc", checkpoint, voc, tmp_path / "both", *FLAGS, *BOTH, "--gate_threshold", 0.5)
    added = {"single_scale", "gated"}
    assert found["scores"].keys() - plain["scores"].keys() == added
    assert {kind: score for kind, score in found["scores"].items() if kind not in added} == plain["scores"]

    assert found["scores"]["gated"]["iou"] != found["scores"]["segmentation"]["iou"]
    network = load_network(checkpoint)[0]
    source = open_source("voc", voc, None, 9)
    names = [item.name for item in source.items("val")]
    sure, right = [], []  # by pixel of the gated labels
    for name, single, gate in zip(
        names, *(read_labels(tmp_path / "both" / kind, names) for kind in ("single_scale", "gated")), strict=True
    ):
        file = source.image_file(name, "val")
        picture = np.asarray(Image.open(file).convert("RGB")).copy()
        image = (torch.from_numpy(picture).permute(2, 0, 1).float() / 255 - MEAN) / STD
        with torch.no_grad():
            seen = network.encoder(image[None])
            logits = F.interpolate(network.decoder(seen.top), picture.shape[:2], mode="bilinear", align_corners=False)
            scores = network.classify(seen)[0].numpy()
        assert (single == logits[0].argmax(0).numpy()).mean() > 0.999
        several = reference_answer(network, file, (1.0, 1.25, 1.5)).logits[None]
        allowed = gated_one_by_one(several, scores, 0.5)[0]
        assert (gate == allowed.argmax(0)).mean() > 0.999
        truth = source.ground_truth(name, "val", None)
        known = truth != 255
        sure.append((1 / np.exp(allowed - allowed.max(0)).sum(0))[known])
        right.append((allowed.argmax(0) == truth)[known])

    errors = json.loads((tmp_path / "both/errors.json").read_text())["errors"]
    assert {kind for kind, of in errors.items() if {"boundary", "trimap", "calibration"} <= of.keys()} == {
        *("segmentation", "crf", "single_scale", "gated")
    }
    assert errors["gated"]["boundary"] != errors["segmentation"]["boundary"]
    confidence, hits = np.concatenate(sure), np.concatenate(right)
    bins = np.ceil(confidence * 15)
    gaps = sum(abs((hits[bins == bin_] - confidence[bins == bin_]).sum()) for bin_ in range(1, 16))
    assert errors["gated"]["calibration"]["ece"] == pytest.approx(gaps / hits.size, abs=1e-3)


def test_neither_can_be_had_without_scale_1(voc, checkpoint, tmp_path, capsys):
    for flag in BOTH:
        said = complaint(capsys, "voc", checkpoint, voc, tmp_path, *FLAGS, flag, "--scales", 0.5, 1.5)
        assert f"{flag.removeprefix('--')} must be false where no scale is 1" in said


def test_results_from_before_there_was_a_choice_resume_and_other_choices_are_refused(tmp_path):
    def settings(*words):
        return parse(["voc", "--checkpoint", "best.pt", "--data_folder", "data", *words]).identity("0" * 64)

    results = Results(tmp_path)
    before = {name: value for name, value in settings().items() if "single" not in name and "gat" not in name}
    results.settings_file.write_text(json.dumps({"settings": before, "provenance": {}}))
    results.check(settings())
    with pytest.raises(Exception, match="holds results with class_gating False, not True"):
        results.check(settings("--class_gating"))
    assert InferConfig.gate_threshold == 0
