"""One training step: views and labels to losses."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from fsr.arithmetic import forward_only
from fsr.cam import multi_scale_aux_cam, multi_scale_cams, named, own_classes, strongest_class, training_label
from fsr.config import TrainConfig
from fsr.cropping import Crops, cut_crops
from fsr.data.images import IGNORED
from fsr.data.transforms import denormalise
from fsr.losses.affinity import affinity_loss
from fsr.losses.contrast import contrast_loss
from fsr.losses.energy import energy_loss
from fsr.losses.segmentation import segmentation_loss
from fsr.losses.self_reinforcement import SelfReinforcement
from fsr.losses.separate_and_conquer import SeparateAndConquer
from fsr.losses.swapped_assignment import swapped_assignment_loss
from fsr.masking import block_mask, uncertain_blocks
from fsr.models.network import Network, StudentOutput, Targets
from fsr.refine import refined_pseudo_label
from fsr.resize import resize
from fsr.schedules import teacher_temperature
from fsr.thresholds import ThresholdMixture, thresholds_of


class Batch(NamedTuple):
    """One step's images, normalised, and their image-level labels."""

    view1: Tensor  # [B, 3, S, S]
    view2: Tensor  # [B, 3, S, S]
    labels: Tensor  # [B, K] 0 or 1
    local_crops: list[Tensor]  # each [B, 3, S', S']
    most_classes: int | None = None  # of an image, if the host has counted them

    def present(self) -> tuple[Tensor, Tensor]:
        """See `own_classes`."""
        return own_classes(self.labels, self.most_classes)

    def split(self, micro_batches: int) -> Iterator["Batch"]:
        """The same images as `micro_batches` batches of equal size."""
        view1, view2, labels = (images.chunk(micro_batches) for images in (self.view1, self.view2, self.labels))
        for i in range(micro_batches):
            crops = [crop.chunk(micro_batches)[i] for crop in self.local_crops]
            yield Batch(view1[i], view2[i], labels[i], crops, self.most_classes)


def step_losses(
    student: Network | DistributedDataParallel,
    teacher: Network,
    reinforcement: SelfReinforcement,
    batch: Batch,
    noise: Tensor,
    step: int,
    config: TrainConfig,
    temperature: Tensor | None = None,
    thresholds: Tensor | None = None,
    mixture: ThresholdMixture | None = None,
    seco: SeparateAndConquer | None = None,
) -> dict[str, Tensor]:
    """Every loss term of step `step` (from 0) and their weighted sum, "loss" (METHOD "Losses").

    `noise` [B, blocks] is the draw for the mask; `temperature` the teacher's and `thresholds` the labels' low and high
    one [2], by default those of the step. The reinforcement's centres, the mixture of the thresholds and the prototypes
    of `seco`, which `w_seco` needs, see the batch; they are not updated yet.
    """
    network = student.module if isinstance(student, DistributedDataParallel) else student
    assert isinstance(network, Network)
    weights = config.loss_weights(step)
    low, high = thresholds_of(step, config) if thresholds is None else thresholds
    autocast = torch.autocast(batch.view1.device.type, torch.bfloat16, enabled=config.precision == "bf16")
    classes, present = batch.present()

    contrasts = [name for name in ("contrast", "seco") if weights.get(name)]
    crops: dict[str, Crops] = {}
    with autocast, targets_of(network, config):
        by_cam = config.use_mim and not config.masks_at_random(step)
        cam2 = view2_cam(network, batch, step, config) if by_cam or contrasts else None
        mask = view2_mask(noise, cam2 if by_cam else None, present, config)
        grid = mask.shape[-2], mask.shape[-1]
        if cam2 is not None and contrasts:
            label = named(training_label(resize(cam2, grid), present, low, high), classes)
            crops = view2_crops(batch.view2, label, contrasts, config)

    with autocast, targets_of(teacher, config):
        target = teacher.targets(
            batch.view1,
            batch.view2,
            segmentation=bool(weights.get("swap")),
            whole="contrast" in crops,
            crops=crops["seco"].images if "seco" in crops else None,
        )
    with autocast:
        out: StudentOutput = student(
            batch.view1,
            batch.view2,
            mask,
            batch.local_crops,
            len(mask) * config.masked_patches,
            torch.cat([of_one.images for of_one in crops.values()]) if crops else None,
        )

    with autocast:
        cam, aux_cam = view1_cams(network, teacher, batch.view1, out, target, classes, config)
    if mixture is not None:
        mixture.see(strongest_class(resize(cam, grid), present)[0])
    pseudo_label = named(pseudo_label_of(batch.view1, cam, present, config, low, high), classes)
    source = cam if config.cam_source_at(step) == "top" else aux_cam
    affinity_label = training_label(resize(source, grid), present, low, high)

    segmentation = out.segmentation.float()
    class_loss, patch_loss = reinforcement(
        out.cls.float(),
        out.patches.float(),
        out.local_cls.float(),
        target.cls.float(),
        target.patches.float(),
        mask,
        temperature_of(step, config) if temperature is None else temperature,
    )
    losses = dict.fromkeys(weights, class_loss.new_zeros(()))  # of what does not count yet
    losses |= {
        "cls_top": F.multilabel_soft_margin_loss(out.top_logits.float(), batch.labels),
        "cls_aux": F.multilabel_soft_margin_loss(out.aux_logits.float(), batch.labels),
        "class": class_loss,
        "patch": patch_loss,
        "aff": affinity_loss(out.features.float(), affinity_label),
        "seg": segmentation_loss(segmentation, pseudo_label, filter_noise=config.filters_noise(step)),
    }
    # The lattice is built only when its term counts. The terms above stay in the sum
    # with weight 0, too: every parameter gets a gradient, as in the released code.
    if weights["reg"] > 0:
        losses["reg"] = energy_loss(segmentation, batch.view1, pseudo_label)
    losses |= option_losses(weights, network, batch.labels, out, target, crops, seco)
    losses["loss"] = sum(weight * losses[name] for name, weight in weights.items())
    return losses


def temperature_of(step: int, config: TrainConfig) -> float:
    """The teacher's temperature in step `step` (from 0)."""
    return teacher_temperature(step, config.teacher_temp_steps, *config.teacher_temp)


@contextmanager
def targets_of(network: Network, config: TrainConfig) -> Iterator[None]:
    """Make CAMs and teacher outputs, which need no gradient.

    Drop path is off in them, unless the configuration keeps it as the released code does.
    """
    training = network.training
    network.train(training and config.drop_path_in_targets)
    try:
        with forward_only():
            yield
    finally:
        network.train(training)


def view2_cam(network: Network, batch: Batch, step: int, config: TrainConfig) -> Tensor:
    """The CAM of view 2 that masks and crops come from, [B, W, S, S], of the W classes of `Batch.present`."""
    classes, _ = batch.present()
    if config.cam_source_at(step) == "top":
        return multi_scale_cams(network, batch.view2, config.cam_scales, classes=classes)[0]
    return multi_scale_aux_cam(network, batch.view2, config.cam_scales, classes=classes)


def view2_mask(noise: Tensor, cam: Tensor | None, present: Tensor, config: TrainConfig) -> Tensor:
    """Mask of view 2, [B, n, n] (bool): blocks where its CAM is uncertain first, or at random where there is none."""
    if not config.use_mim:
        side = config.crop_size // config.patch_size
        return torch.zeros(len(noise), side, side, dtype=torch.bool, device=noise.device)
    return block_mask(noise, None if cam is None else uncertain_blocks(cam, present, config), config)


def view2_crops(view: Tensor, label: Tensor, names: Sequence[str], config: TrainConfig) -> dict[str, Crops]:
    """The crops of view 2 for the losses of these names, by its label [B, n, n], made as that of the affinity loss."""
    uncertain, background = label == IGNORED, label == 0
    wanted = {"contrast": (uncertain, background), "seco": (~(uncertain | background),)}
    draws = torch.rand(len(names), len(label), label[0].numel(), device=label.device)
    return {name: cut_crops(view, label, wanted[name], draw, config) for name, draw in zip(names, draws, strict=True)}


def view1_cams(
    network: Network,
    teacher: Network,
    view: Tensor,
    out: StudentOutput,
    target: Targets,
    classes: Tensor,
    config: TrainConfig,
) -> tuple[Tensor, Tensor]:
    """Top and aux CAM of view 1 for its labels, each [B, W, S, S], of the network that `pseudo_label_from` names."""
    # The network's own pass is one of the CAM's six, unless the student's drop path is not wanted there.
    seen: tuple[Tensor, Tensor] | None = target.features, target.aux_features
    if config.pseudo_label_from == "student":
        own = out.features.detach(), out.aux_features.detach()
        seen = own if config.drop_path_in_targets or config.drop_path == 0 else None
    labeller = network if config.pseudo_label_from == "student" else teacher
    with targets_of(labeller, config):
        return multi_scale_cams(labeller, view, config.cam_scales, seen=seen, classes=classes)


def pseudo_label_of(
    view: Tensor, cam: Tensor, labels: Tensor, config: TrainConfig, low: float | Tensor, high: float | Tensor
) -> Tensor:
    """Pseudo label [B, S, S] of normalised views [B, 3, S, S] with multi-scale CAM [B, K, S, S] and labels [B, K]."""
    image = denormalise(view)
    image = (image.round() if config.image_levels == "round" else image.trunc()).clamp(0, 255)
    return refined_pseudo_label(image / 255, cam, labels, high, low)


def option_losses(
    weights: Mapping[str, float],
    network: Network,
    labels: Tensor,
    out: StudentOutput,
    target: Targets,
    crops: Mapping[str, Crops],
    seco: SeparateAndConquer | None,
) -> dict[str, Tensor]:
    """Those terms of other methods that count; `out` holds the crops of one contrast after those of the other."""
    losses = {}
    if weights.get("swap"):
        losses["swap"] = swapped_assignment_loss(network.top_scores(out.features), target.segmentation, labels)
    sizes = [len(of_one.images) for of_one in crops.values()]
    embedded = dict(zip(crops, torch.split(out.crops.float(), sizes), strict=True))
    if "contrast" in crops:
        losses["contrast"] = contrast_loss(embedded["contrast"], target.whole.float(), crops["contrast"].fits)
    if "seco" in crops:
        assert seco is not None
        tags = (crops["seco"].tags * crops["seco"].fits).flatten()
        losses["seco"] = seco(embedded["seco"], target.crops.float(), tags)
    return losses
