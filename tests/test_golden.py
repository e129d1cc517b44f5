"""The method's parts against measured inputs and outputs of the released implementation (see golden/README.md).

Runs over every set in the folder that FSR_GOLDEN names, by default tests/golden; sizes come from the files.
"""

import dataclasses
import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from fsr.cam import multi_scale_aux_cam, multi_scale_cams, strongest_class, training_label
from fsr.config import TrainConfig, voc
from fsr.crf import CRFSettings, crf_pseudo_label, dense_crf
from fsr.ema import update_teacher
from fsr.inference.multi_scale import fuse_logits, multi_scale_inference
from fsr.losses.affinity import affinity_loss
from fsr.losses.energy import energy_loss
from fsr.losses.segmentation import segmentation_loss
from fsr.losses.self_reinforcement import SelfReinforcement
from fsr.masking import block_mask, uncertain_blocks
from fsr.metrics import ConfusionMatrix, class_f1
from fsr.models.network import Network
from fsr.ops import bilateral_filter
from fsr.optim import build_optimizer, set_learning_rates
from fsr.refine import refine, refined_pseudo_label
from fsr.schedules import lr_factor, teacher_momentum, teacher_temperature
from fsr.step import Batch, step_losses

HOME = Path(__file__).parent / "golden"
SETS = sorted(path for path in Path(os.environ.get("FSR_GOLDEN", HOME)).iterdir() if path.is_dir())
assert SETS, "no golden set found"
IMAGENET = torch.tensor([0.485, 0.456, 0.406])[:, None, None], torch.tensor([0.229, 0.224, 0.225])[:, None, None]


@pytest.fixture(params=SETS, ids=lambda path: path.name)
def golden(request):
    """Loads NAME.npz of the set as a dictionary of tensors and NumPy scalars."""

    def load(name: str) -> dict:
        arrays = np.load(request.param / f"{name}.npz")
        return {key: torch.from_numpy(a) if (a := arrays[key]).ndim and a.dtype.kind in "biuf" else a for key in arrays}

    return load


def golden_weight(name: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    spec = importlib.util.spec_from_file_location("golden_weights", HOME / "weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return torch.from_numpy(module.golden_weight(name, shape, seed))


def config_of(data: dict, **changes) -> TrainConfig:
    dim, depth, heads, classes, size, out_dim, hidden, bottleneck = (int(x) for x in data["config"])
    return dataclasses.replace(
        voc(),
        pretrained="none",
        embed_dim=dim,
        depth=depth,
        heads=heads,
        num_classes=classes,
        crop_size=size,
        block_size=16,
        out_dim=out_dim,
        projector_hidden=hidden,
        projector_bottleneck=bottleneck,
        drop_path=0.0,
        **changes,
    )


def network_of(data: dict, config: TrainConfig) -> Network:
    network = Network(config)
    names = [str(name) for name in data["weight_names"]]
    shapes = [tuple(int(side) for side in str(shape).strip("()").split(",") if side) for shape in data["weight_shapes"]]
    assert set(names) == set(network.state_dict())
    seed = int(data["weights_seed"])
    network.load_state_dict({n: golden_weight(n, s, seed) for n, s in zip(names, shapes, strict=True)})
    return network


def assert_close(ours: torch.Tensor, theirs, tolerance: float = 1e-4) -> None:
    """Within `tolerance` of the array's largest entry."""
    theirs = torch.as_tensor(theirs)
    ours = ours.detach().reshape(theirs.shape) if theirs.numel() == 1 else ours.detach()
    assert ours.shape == theirs.shape
    error = (ours.double() - theirs.double()).abs().max() / theirs.double().abs().max().clamp(min=1e-30)
    assert error <= tolerance, f"relative error {error:.2e}"


def test_network_outputs_of_two_views_and_local_crops(golden):
    data = golden("model")
    network = network_of(data, config_of(data)).eval()
    batch = len(data["view1"])

    def outputs(images, mask=None):
        seen = network.encoder(images, mask)
        top_logits, aux_logits = network.classify(seen)
        top_cam, aux_cam = network.top_cam(seen.top), network.aux_cam(seen.aux)
        cls = network.encoder.class_token(seen.last, mask)
        tokens = torch.cat([cls[:, None], seen.top.flatten(2).transpose(1, 2)], dim=1)
        return {
            "top_cls_out": top_logits,
            "aux_cls_out": aux_logits,
            "project_out": network.projector(tokens),
            "seg_out": network.decoder(seen.top),
            "top_cam": top_cam,
            "aux_cam": aux_cam,
            "top_fmap": seen.top,
            "aux_fmap": seen.aux,
        }

    both = outputs(torch.cat([data["view1"], data["view2"]]), data["mask"])
    for name, ours in both.items():
        assert_close(ours if name == "project_out" else ours[:batch], data[f"out::{name}"])
    for name, ours in outputs(data["other_size_input"]).items():
        assert_close(ours, data[f"other::{name}"])
    local = torch.cat([network.encoder.class_token(network.encoder(data[name]).last) for name in ("local1", "local2")])
    assert_close(network.projector(local), data["out::project_out2"])

    # The same through the pass that training takes.
    out = network(data["view1"], data["view2"], data["mask"][batch:], [data["local1"], data["local2"]])
    projected = data["out::project_out"]
    assert_close(out.top_logits, data["out::top_cls_out"])
    assert_close(out.aux_logits, data["out::aux_cls_out"])
    assert_close(out.segmentation, data["out::seg_out"])
    assert_close(out.features, data["out::top_fmap"])
    assert_close(out.cls, projected[batch:, 0])
    assert_close(out.patches, projected[batch:, 1:][data["mask"][batch:].flatten(1)])
    assert_close(out.local_cls, data["out::project_out2"])


def test_multi_scale_cams_and_labels_from_them(golden):
    data = golden("cam")
    config = config_of(data)
    network = network_of(data, config).eval()
    cam, aux_cam = multi_scale_cams(network, data["input"], (1.0, 0.5, 1.5))
    assert_close(cam, data["cam"])
    assert_close(aux_cam, data["aux_cam"])
    labels = data["cls_label"]
    assert_close(cam * labels[:, :, None, None], data["valid_cam"])
    assert torch.equal(multi_scale_aux_cam(network, data["input"], (1.0, 0.5, 1.5)), aux_cam)
    features = network.encoder(data["input"])
    seen = features.top, features.aux
    for ours, theirs in zip(
        multi_scale_cams(network, data["input"], (1.0, 0.5, 1.5), seen=seen), (cam, aux_cam), strict=True
    ):
        assert_close(ours, theirs)
    odd_cam, odd_aux_cam = multi_scale_cams(network, data["odd_input"], (1.0, 0.5, 1.5))
    assert_close(odd_cam, data["odd_cam"])
    assert_close(odd_aux_cam, data["odd_aux_cam"])

    # From the released CAM itself the labels are exact.
    assert torch.equal(training_label(data["cam"], labels, 0.25, 0.7), data["label_ignore_mid"].long())
    value, label = strongest_class(data["cam"], labels)
    assert torch.equal(label.masked_fill(value <= 0.5, 0), data["label_bkg"].long())


def test_multi_scale_inference(golden):
    data = golden("infer")
    network = network_of(data, config_of(data)).eval()
    every_class = torch.ones(1, network.top_classifier.out_channels)
    seen = multi_scale_inference(network, data["image"], every_class, tuple(data["scales"].tolist()))
    assert_close(seen.logits, data["seg_logits"])
    assert_close(seen.cams[0], data["cam"][0])
    assert torch.equal(fuse_logits(seen.grids, data["image"].shape[-2:]), seen.logits)


def test_refinement_and_pseudo_label(golden):
    data = golden("refine")
    image = data["image"].float() / 255
    assert_close(refine(image, data["masks"]), data["refined"])
    label = refined_pseudo_label(image, data["cams"], data["cls_label"], 0.7, 0.25)
    assert torch.equal(label, data["pseudo_label"].long())


def test_block_mask_random_and_uncertain(golden):
    data = golden("mask")
    crop, patch, block, ratio, low, high = data["settings"].tolist()
    config = dataclasses.replace(
        voc(),
        crop_size=int(crop),
        patch_size=int(patch),
        block_size=int(block),
        mask_ratio=ratio,
        uncertain=(low, high),
    )
    assert torch.equal(block_mask(data["noise"], None, config), data["random_mask"])
    uncertain = uncertain_blocks(data["cam"].float(), data["cls_label"], config)
    assert torch.equal(block_mask(data["noise"], uncertain, config), data["uncertain_mask"])


def test_class_and_patch_self_reinforcement_with_their_centres(golden):
    data = golden("fsr_loss")
    batch = len(data["t0"]) // 2
    warmup = int(data["warmup_steps"])
    mask = data["mask"][batch:]

    def call(reinforcement, teacher, student, step, local):
        return reinforcement(
            student[batch:, 0],
            student[batch:, 1:][mask.flatten(1)],
            local,
            teacher[:batch, 0],
            teacher[batch:, 1:],
            mask,
            teacher_temperature(step, warmup, 0.04, 0.07),
        )

    none = data["s0"].new_empty(0, data["s0"].shape[-1])
    reinforcement = SelfReinforcement(data["s0"].shape[-1])
    for i, step in enumerate(data["step"].tolist()):
        class_loss, patch_loss = call(reinforcement, data[f"t{i}"], data[f"s{i}"], step, none)
        reinforcement.update_centres()
        assert_close(class_loss, data[f"class_loss{i}"])
        assert_close(patch_loss, data[f"patch_loss{i}"])
        assert_close(reinforcement.class_centre, data[f"class_center{i}"])
        assert_close(reinforcement.patch_centre, data[f"patch_center{i}"])

    reinforcement = SelfReinforcement(data["s0"].shape[-1])
    class_loss, patch_loss = call(reinforcement, data["local_t0"], data["local_s0"], 0, data["local_s2"])
    reinforcement.update_centres()
    assert_close(class_loss, data["local_class_loss0"])
    assert_close(patch_loss, data["local_patch_loss0"])
    assert_close(reinforcement.class_centre, data["local_class_center0"])
    assert_close(reinforcement.patch_centre, data["local_patch_center0"])


def test_segmentation_affinity_and_energy_loss_with_gradients(golden):
    data = golden("losses")
    logits = data["seg_logits"].requires_grad_()
    loss = segmentation_loss(logits, data["seg_label"])
    assert_close(loss, data["seg_loss"])
    assert_close(torch.autograd.grad(loss, logits)[0], data["seg_grad"])

    features = data["aff_fmap"].requires_grad_()
    loss = affinity_loss(features, data["aff_label"])
    assert_close(loss, data["aff_loss"])
    assert_close(torch.autograd.grad(loss, features)[0], data["aff_grad"])

    logits = data["energy_logits"].requires_grad_()
    image, label = data["energy_image_normalised"], data["energy_label"]
    loss = energy_loss(logits, image, label)
    assert_close(loss, data["energy_loss"], 1e-3)
    assert_close(torch.autograd.grad(loss, logits)[0], data["energy_grad"], 1e-3)


def test_bilateral_filter(golden):
    data = golden("bilateral")
    for i, (sigma_rgb, sigma_xy) in enumerate(data["settings"].tolist()):
        filtered = bilateral_filter(data["image"], data["values"], sigma_rgb, sigma_xy)
        assert_close(filtered, data[f"filtered_{i}"], 1e-3)


def test_dense_crf_and_pseudo_label(golden):
    data = golden("crf")
    image = data["image"].numpy()

    def settings(name):
        return CRFSettings(*data[f"settings_{name}"].tolist())

    for name in ("infer", "pseudo", "one"):
        marginals = torch.as_tensor(dense_crf(image, data["prob"].numpy(), settings(name)))
        assert (marginals.argmax(0) == data[f"Q_{name}"].argmax(0)).float().mean() >= 0.999
        assert (marginals - data[f"Q_{name}"]).abs().max() <= 2e-3
    planes, classes = data["image"].permute(2, 0, 1), data["pseudo_classes"] + 1
    label = crf_pseudo_label(planes, data["pseudo_cams"], classes, 0.7, 0.25, settings("pseudo"))
    assert (label == data["pseudo_label"]).float().mean() >= 0.999


def test_scores(golden):
    data = golden("scores")
    matrix = ConfusionMatrix(len(data["iou"]))
    for ground_truth, prediction in zip(data["gt"], data["pred"], strict=True):
        matrix.add(prediction, ground_truth)
    assert matrix.miou() == pytest.approx(float(data["miou"]), rel=1e-6)
    assert matrix.pixel_accuracy() == pytest.approx(float(data["pacc"]), rel=1e-6)
    assert_close(matrix.iou().nan_to_num(0), data["iou"])
    pseudo = ConfusionMatrix(len(data["iou"]))
    pseudo.add(data["pseudo_pred"], data["gt"])
    assert pseudo.miou() == pytest.approx(float(data["pseudo_miou"]), rel=1e-6)
    assert_close(class_f1(data["class_pred"] > 0, data["class_true"] > 0), data["class_f1"])


def test_schedules(golden):
    data = golden("schedules")
    steps, start = int(data["momentum_steps"]), float(data["momentum_start"])
    ours = torch.tensor([1 - teacher_momentum(i, start, steps) for i in range(len(data["one_minus_momentum"]))])
    assert_close(ours, data["one_minus_momentum"])
    warmup = int(data["teacher_temp_warmup"])
    ours = torch.tensor([teacher_temperature(i, warmup, 0.04, 0.07) for i in range(len(data["teacher_temp"]))])
    assert_close(ours, data["teacher_temp"])
    warmup, steps, ratio = int(data["lr_warmup"]), int(data["lr_steps"]), float(data["lr_warmup_ratio"])
    ours = torch.tensor([lr_factor(i, warmup, steps, ratio) for i in range(len(data["lr_factor"]))])
    assert_close(ours, data["lr_factor"])


def test_three_whole_training_steps(golden):
    data = golden("train_steps")
    config = config_of(data, iterations=20_000)
    schedule = dataclasses.replace(config, iterations=200, warmup=4 / 200, lr=1e-3)
    student, teacher = network_of(data, config), network_of(data, config)
    start = {name: parameter.detach().clone() for name, parameter in student.named_parameters()}
    optimizer = build_optimizer(student, schedule)
    reinforcement = SelfReinforcement(config.out_dim)
    assert_parameter_groups(optimizer, student, data)

    i = 0
    while f"view1_{i}" in data:
        views = [((data[f"{view}_{i}"].float() + 0.7) / 255 - IMAGENET[0]) / IMAGENET[1] for view in ("view1", "view2")]
        batch = Batch(*views, data["cls_label"], [])
        losses = step_losses(
            student, teacher, reinforcement, batch, data[f"noise_{i}"], int(data["first_step"]) + i, config
        )
        ours = {
            "cls": losses["cls_top"] + losses["cls_aux"],
            "fc": losses["class"],
            "fp": losses["patch"],
            **{name: losses[name] for name in ("aff", "seg", "reg", "loss")},
        }
        for name, loss in ours.items():
            assert_close(loss, data[f"{name}_{i}"], 1e-3 if name in ("seg", "reg", "loss") else 1e-4)
        set_learning_rates(optimizer, i, schedule)
        assert_close(torch.tensor([group["lr"] for group in optimizer.param_groups]), data[f"lr_{i}"])
        optimizer.zero_grad()
        losses["loss"].backward()
        reinforcement.update_centres()
        optimizer.step()
        update_teacher(teacher, student, 0.95)
        assert_moved(student, start, data["param_names"], data[f"student_delta_{i}"], 2e-4)
        assert_moved(teacher, start, data["param_names"], data[f"teacher_delta_{i}"], 5e-3)
        i += 1
    assert i > 0


def assert_parameter_groups(optimizer, network, data):
    group_of = {id(p): i for i, group in enumerate(optimizer.param_groups) for p in group["params"]}
    parameters = dict(network.named_parameters())
    for name, group in zip(data["param_names"], data["param_group"].tolist(), strict=True):
        if parameters[str(name)].requires_grad:
            assert group_of[id(parameters[str(name)])] == group, name


def assert_moved(network, start, names, deltas, tolerance):
    parameters = dict(network.named_parameters())
    for name, theirs in zip(names, deltas.tolist(), strict=True):
        name = str(name)
        if name.endswith(("attn.qkv.bias", "attn.k.bias")):
            continue  # their key part has no gradient in exact arithmetic
        ours = (parameters[name].detach().double() - start[name].double()).norm().item()
        assert ours == pytest.approx(theirs, rel=tolerance, abs=0), name
