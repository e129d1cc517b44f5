"""Swapped assignments, and which network's and which layer's CAM labels and masks come from, against plain code."""

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import reference_step as plain
import torch
from tiny import tiny_config
from torch._subclasses.fake_tensor import FakeTensorMode

from fsr import resize
from fsr.checkpoint import TrainState, load_file
from fsr.compare import first_difference
from fsr.config import TrainConfig, voc
from fsr.data import transforms
from fsr.losses.self_reinforcement import SelfReinforcement
from fsr.losses.swapped_assignment import assignment, swapped_assignment_loss
from fsr.masking import block_noise
from fsr.models.network import Network
from fsr.refine import position_weights
from fsr.run import Run
from fsr.step import Batch, step_losses, view2_cam, view2_mask
from fsr.thresholds import ThresholdMixture
from fsr.train import backward, train

TESTS = Path(__file__).parent
STEPS = 50
ALL = {"w_swap": 0.05, "threshold_rule": "mixture", "pseudo_label_from": "teacher", "cam_source": "aux_then_top"}
SIZE = {"crop_size": 32, "block_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 4, "heads": 2, "num_classes": 6}
SIZE |= {"decoder_width": 8, "decoder_dilation": 2, "projector_hidden": 8, "projector_bottleneck": 4, "out_dim": 8}


def config_with(**changes) -> TrainConfig:
    """A run of 50 steps of the reference step's kind."""
    own = {"pretrained": "none", "weight_init": "fan_in", "drop_path": 0.0, "iterations": STEPS}
    return dataclasses.replace(voc(), **(SIZE | own | changes))


class Step:
    """Two networks that differ, a batch, and the losses of a step with them."""

    def __init__(self, **changes) -> None:
        self.config = config_with(**changes)
        torch.manual_seed(0)
        self.student, self.teacher = Network(self.config).train(), Network(self.config).train().requires_grad_(False)
        self.batch = Batch(torch.randn(2, 3, 32, 32), torch.randn(2, 3, 32, 32), torch.eye(5)[[1, 3]], [])
        self.batch.labels[0, 4] = 1
        self.noise = block_noise(2, self.config)

    def losses(self, step: int, **others) -> dict[str, torch.Tensor]:
        parts = self.student, self.teacher, SelfReinforcement(self.config.out_dim)
        return step_losses(*parts, self.batch, self.noise, step, self.config, **others)


def plain_swap(scores, segmentation, labels) -> float:
    """The swapped assignment, number by number."""
    terms = []
    for image in range(len(scores)):
        for y in range(scores.shape[2]):
            for x in range(scores.shape[3]):
                kept = [0] + [k + 1 for k, there in enumerate(labels[image].tolist()) if there]
                logits = {c: segmentation[image, c, y, x].item() for c in kept}
                highest = max(logits.values())
                powers = {c: math.exp((z - highest) / 0.01) for c, z in logits.items()}
                for k in range(scores.shape[1]):
                    target = powers.get(k + 1, 0.0) / sum(powers.values())
                    sigmoid = 1 / (1 + math.exp(-scores[image, k, y, x].item()))
                    terms.append(-target * math.log(sigmoid) - (1 - target) * math.log(1 - sigmoid))
    return sum(terms) / len(terms)


def test_the_swapped_assignment_is_that_of_plain_loops():
    torch.manual_seed(0)
    scores, labels = torch.randn(2, 4, 3, 3), torch.tensor([[1.0, 0, 1, 0], [0, 0, 0, 0]])
    segmentation = 0.02 * torch.randn(2, 5, 3, 3)  # so near to each other that the softmax decides nothing
    expected = plain_swap(scores, segmentation, labels)
    assert swapped_assignment_loss(scores, segmentation, labels).item() == pytest.approx(expected, rel=1e-5)


def test_the_swapped_assignment_teaches_the_cam_alone():
    scores = torch.randn(2, 4, 3, 3, requires_grad=True)
    segmentation, labels = torch.randn(2, 5, 3, 3, requires_grad=True), torch.ones(2, 4)
    swapped_assignment_loss(scores, segmentation, labels).backward()
    assert segmentation.grad is None
    target = assignment(segmentation, labels).detach()
    torch.testing.assert_close(scores.grad, (scores.detach().sigmoid() - target) / scores.numel())


def test_absent_classes_are_assigned_nothing_and_the_background_stays():
    segmentation = torch.zeros(1, 4, 1, 1)
    segmentation[0, 2] = 9.0  # of a class that the image does not have
    shares = assignment(segmentation, torch.tensor([[1.0, 0.0, 0.0]]))
    assert shares.flatten().tolist() == pytest.approx([0.5, 0, 0])


def test_the_step_swaps_the_teachers_segmentation_of_view_1_for_the_students_cam():
    step = Step(w_swap=0.05)
    losses = step.losses(STEPS - 1)
    segmentation = plain.whole_network(step.teacher, step.batch.view1)["segmentation"]
    features = plain.encode(step.student, step.batch.view1)["top"]
    expected = plain_swap(step.student.top_classifier(features), segmentation, step.batch.labels)
    assert losses["swap"].item() == pytest.approx(expected, rel=1e-4)
    without = Step().losses(STEPS - 1)
    assert losses["loss"].item() == pytest.approx(without["loss"].item() + 0.05 * expected, rel=1e-5)
    losses["swap"].backward()
    for name in ("top_classifier.weight", "encoder.patch_embed.proj.weight"):
        assert step.student.get_parameter(name).grad.abs().sum() > 0
    assert step.student.decoder.conv8.weight.grad is None


def test_before_it_counts_the_swapped_assignment_costs_no_pass_of_the_decoder(monkeypatch):
    step = Step(w_swap=0.05, swap_from=0.5)
    monkeypatch.setattr(step.teacher.decoder, "forward", None)
    assert step.losses(24)["swap"] == 0
    with pytest.raises(TypeError):
        step.losses(25)


def test_the_swapped_assignment_never_counts_before_the_segmentation_loss():
    config = config_with(w_swap=0.05, swap_from=0.2, seg_from=0.6)
    assert [config.loss_weights(step)["swap"] > 0 for step in range(STEPS)] == [step >= 30 for step in range(STEPS)]


def test_losses_are_recorded_as_before_where_no_option_adds_one():
    assert voc().losses == ("loss", "cls_top", "cls_aux", "class", "patch", "aff", "seg", "reg")
    assert config_with(w_swap=0.05).losses == (*voc().losses, "swap")


@pytest.mark.parametrize(
    "pseudo_label_from, cam_source, step",
    [
        *[("student", "aux", 49), ("teacher", "aux", 49), ("student", "top", 10)],
        *[("teacher", "aux_then_top", 24), ("teacher", "aux_then_top", 25)],
    ],
)
def test_labels_and_masks_come_from_the_network_and_the_cam_that_are_named(pseudo_label_from, cam_source, step):
    case = Step(pseudo_label_from=pseudo_label_from, cam_source=cam_source)
    config, (view1, view2, labels) = case.config, case.batch[:3]
    uses_top = {"aux": False, "top": True, "aux_then_top": step >= 25}[cam_source]
    top, aux = plain.cams(getattr(case, pseudo_label_from), view1, config.cam_scales)
    pseudo_label = torch.stack([plain.refined_label(*image, config) for image in zip(view1, top, labels, strict=True)])
    out = plain.whole_network(case.student, view1)
    small = torch.nn.functional.interpolate(top if uses_top else aux, size=(4, 4), mode="bilinear")
    losses = case.losses(step)
    expected = plain.affinity(out["top"], plain.two_threshold_label(small, labels, config))
    assert losses["aff"].item() == pytest.approx(float(expected), rel=1e-4)
    expected = plain.segmentation_loss(out["segmentation"], pseudo_label)
    assert losses["seg"].item() == pytest.approx(float(expected), rel=1e-4)
    cam = plain.cams(case.student, view2, config.cam_scales)[not uses_top]
    _, present = case.batch.present()
    mask = view2_mask(case.noise, view2_cam(case.student, case.batch, step, config), present, config)
    assert torch.equal(mask, plain.block_mask(cam, labels, case.noise, step, config))


def test_labels_have_the_thresholds_of_the_step():
    expected = Step(low_threshold=0.1, high_threshold=0.45).losses(STEPS - 1)
    found = Step().losses(STEPS - 1, thresholds=torch.tensor([0.1, 0.45]))
    assert {name: loss.item() for name, loss in found.items()} == {n: loss.item() for n, loss in expected.items()}
    assert found["seg"] != Step().losses(STEPS - 1)["seg"]


def test_the_mixture_sees_the_largest_value_of_the_labels_cam_at_each_patch():
    case, mixture = Step(pseudo_label_from="teacher"), ThresholdMixture(0.25, 0.7)
    case.losses(STEPS - 1, mixture=mixture)
    top, _ = plain.cams(case.teacher, case.batch.view1, case.config.cam_scales)
    small = torch.nn.functional.interpolate(top, size=(4, 4), mode="bilinear")
    values = (small * case.batch.labels[:, :, None, None]).amax(1)
    expected = torch.histc(values, bins=100, min=0, max=1)
    assert mixture._seen.sum() == 32
    assert (mixture._seen - expected).abs().sum() <= 2  # a value on an edge may be counted beside it


def test_a_run_with_all_of_these_options_resumes_bit_identically(synthetic_folder, tmp_path):
    config = tiny_config(synthetic_folder, ranks=2, batch_size=1, **ALL)
    broken, whole = Run(tmp_path / "broken"), Run(tmp_path / "whole")
    left = iter(range(100))
    train(config, broken, stop_requested=lambda: next(left) == 7)
    train(config, broken)
    train(config, whole)
    assert first_difference(broken, whole) is None
    last = [record for record in whole.metrics() if "train/loss" in record][-1]
    assert last["train/swap"] > 0
    assert last["train/high_threshold"] != config.high_threshold


def test_no_option_makes_the_host_wait_or_the_shapes_depend_on_data():
    """Fake tensors hold nothing, and whoever asks for a value or for a shape that depends on one is refused."""
    config = config_with(depth=3, cam_scales=(1.0, 0.5), **ALL)
    with torch.device("meta"):
        parts = Network(config).train(), Network(config).train().requires_grad_(False), SelfReinforcement(8)
        mixture = ThresholdMixture(0.25, 0.7)
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cpu"):
        for module in (*parts, mixture):
            module.to_empty(device="cpu")
        views, labels, noise = torch.empty(2, 3, 32, 32), torch.zeros(2, 5), torch.empty(2, 4)
        batch, thresholds = Batch(views, views, labels, [], 2), mixture.thresholds
        losses = step_losses(*parts, batch, noise, STEPS - 1, config, torch.ones(()), thresholds, mixture)
        losses["loss"].backward()
        mixture.update(STEPS - 1)
        assert losses.keys() == {*config.losses}
    torch.__future__.set_overwrite_module_params_on_conversion(before)
    for kept in (resize._matrix, transforms._levels, position_weights):
        kept.cache_clear()  # they hold tensors that hold nothing


class Noted:
    """In place of the graphs of a GPU: notes what would be recorded as one, and what would enter it."""

    def __init__(self) -> None:
        self.kinds, self.thresholds = [], []

    def run(self, kind, work, inputs):
        self.kinds.append(kind)
        self.thresholds.append(inputs[1].tolist())
        losses, (temperature, thresholds, *others) = work(*inputs), inputs
        assert torch.equal(work(*inputs), losses)
        assert not torch.equal(work(temperature, thresholds - 0.2, *others), losses)
        return losses


def test_thresholds_enter_a_graph_and_another_source_of_the_cam_is_another_graph():
    config = config_with(cam_source="aux_then_top", threshold_rule="cosine")
    state, noted = TrainState(config, torch.device("cpu")), Noted()
    batch = Step().batch._replace(most_classes=2)
    for state.step in (20, 24, 25, 40):
        backward(state.student.train(), state, batch, block_noise(2, config), config, 1, noted)
    assert noted.kinds[0] == noted.kinds[1] != noted.kinds[2] == noted.kinds[3]
    highs = [high for _, high in noted.thresholds]
    assert highs == sorted(highs, reverse=True)
    assert len(set(highs)) == 4


@pytest.mark.gpu
@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("rule", ["cosine", "mixture"])
def test_on_a_gpu_a_run_with_these_options_resumes_bit_identically(synthetic_folder, tmp_path, graphs, rule):
    config = tiny_config(synthetic_folder, graphs=graphs, iterations=20, **ALL | {"threshold_rule": rule})
    broken, whole = Run(tmp_path / "broken"), Run(tmp_path / "whole")
    left = iter(range(100))
    train(config, broken, stop_requested=lambda: next(left) == 13)
    train(config, broken)
    train(config, whole)
    assert first_difference(broken, whole) is None


@pytest.mark.gpu
def test_on_a_gpu_recorded_steps_learn_what_others_do(synthetic_folder, tmp_path):
    runs = [Run(tmp_path / str(graphs)) for graphs in (False, True)]
    for run, graphs in zip(runs, (False, True), strict=True):
        train(tiny_config(synthetic_folder, graphs=graphs, iterations=20, log_every=1, **ALL), run)
    ours, theirs = ([r for r in run.metrics() if "train/loss" in r] for run in runs)
    for record, other in zip(ours, theirs, strict=True):
        for name in ("train/loss", "train/swap", "train/low_threshold", "train/high_threshold"):
            assert record[name] == pytest.approx(other[name], rel=1e-3, abs=1e-6), (record["step"], name)


@pytest.mark.slow
def test_processes_that_share_the_micro_batches_find_the_same_thresholds(synthetic_folder, tmp_path):
    runs = [Run(tmp_path / str(processes)) for processes in (1, 2)]
    changes = json.dumps({"ranks": 4, "iterations": 20, "eval_every": 20, "log_every": 1, **ALL})
    for processes, run in enumerate(runs, 1):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        command += [str(TESTS / "ddp_run.py"), str(synthetic_folder), str(run.folder), "0", changes]
        paths = os.pathsep.join([str(TESTS), str(TESTS.parent)])
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
        subprocess.run(command, check=True, capture_output=True, timeout=200, env=environment)
    alone, shared = ([r for r in run.metrics() if "train/loss" in r] for run in runs)
    for record, other in zip(alone, shared, strict=True):
        for name in ("train/loss", "train/swap", "train/low_threshold", "train/high_threshold"):
            assert record[name] == pytest.approx(other[name], rel=1e-4, abs=1e-6), (record["step"], name)
    ours, theirs = (load_file(run.checkpoint_file)["mixture"]["counts"] for run in runs)
    assert ours.sum() == theirs.sum() == 20 * 8 * 16  # steps, images, patches
    assert (ours - theirs).abs().sum() <= 20  # a value on an edge may be counted beside it
