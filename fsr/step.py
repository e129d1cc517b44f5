"""One training step: views and labels to losses."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from fsr.arithmetic import forward_only
from fsr.cam import multi_scale_aux_cam, multi_scale_cams, named, own_classes, training_label
from fsr.config import TrainConfig
from fsr.data.transforms import denormalise
from fsr.losses.affinity import affinity_loss
from fsr.losses.energy import energy_loss
from fsr.losses.segmentation import segmentation_loss
from fsr.losses.self_reinforcement import SelfReinforcement
from fsr.masking import block_mask, uncertain_blocks
from fsr.models.network import Network, StudentOutput
from fsr.refine import refined_pseudo_label
from fsr.resize import resize
from fsr.schedules import teacher_temperature


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
) -> dict[str, Tensor]:
    """Every loss term of step `step` (from 0) and their weighted sum, "loss" (METHOD "Losses").

    `noise` [B, blocks] is the draw for the mask; `temperature` the teacher's, by default that of the step. The
    reinforcement's centres are not updated yet.
    """
    network = student.module if isinstance(student, DistributedDataParallel) else student
    assert isinstance(network, Network)
    weights = config.loss_weights(step)
    autocast = torch.autocast(batch.view1.device.type, torch.bfloat16, enabled=config.precision == "bf16")
    classes, present = batch.present()

    with autocast, targets_of(network, config):
        mask = view2_mask(network, batch, noise, step, config)
    with autocast, targets_of(teacher, config):
        teacher_cls, teacher_patches = teacher.targets(batch.view1, batch.view2)
    with autocast:
        out: StudentOutput = student(
            batch.view1, batch.view2, mask, batch.local_crops, len(mask) * config.masked_patches
        )
    with autocast, targets_of(network, config):
        # The student's own pass is one of the CAM's six, unless its drop path is not wanted there.
        own = out.features.detach(), out.aux_features.detach()
        seen = own if config.drop_path_in_targets or config.drop_path == 0 else None
        cam, aux_cam = multi_scale_cams(network, batch.view1, config.cam_scales, seen=seen, classes=classes)

    pseudo_label = named(pseudo_label_of(batch.view1, cam, present, config), classes)
    grid = resize(aux_cam, (out.features.shape[-2], out.features.shape[-1]))
    affinity_label = training_label(grid, present, config.low_threshold, config.high_threshold)
    segmentation = out.segmentation.float()
    class_loss, patch_loss = reinforcement(
        out.cls.float(),
        out.patches.float(),
        out.local_cls.float(),
        teacher_cls.float(),
        teacher_patches.float(),
        mask,
        temperature_of(step, config) if temperature is None else temperature,
    )
    losses = {
        "cls_top": F.multilabel_soft_margin_loss(out.top_logits.float(), batch.labels),
        "cls_aux": F.multilabel_soft_margin_loss(out.aux_logits.float(), batch.labels),
        "class": class_loss,
        "patch": patch_loss,
        "aff": affinity_loss(out.features.float(), affinity_label),
        "seg": segmentation_loss(segmentation, pseudo_label),
    }
    # The lattice is built only when its term counts. Other terms of weight 0 stay
    # in the sum: every parameter gets a gradient, as in the released code.
    counts = weights["reg"] > 0
    losses["reg"] = energy_loss(segmentation, batch.view1, pseudo_label) if counts else class_loss.new_zeros(())
    losses["loss"] = sum(weights[name] * loss for name, loss in losses.items())
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


def view2_mask(network: Network, batch: Batch, noise: Tensor, step: int, config: TrainConfig) -> Tensor:
    """Mask of view 2, [B, n, n] (bool): random in the first fifth of the run, after it uncertain blocks first."""
    if not config.use_mim:
        side = config.crop_size // config.patch_size
        return torch.zeros(len(noise), side, side, dtype=torch.bool, device=noise.device)
    uncertain = None
    if not config.masks_at_random(step):
        classes, present = batch.present()
        aux_cam = multi_scale_aux_cam(network, batch.view2, config.cam_scales, classes=classes)
        uncertain = uncertain_blocks(aux_cam, present, config)
    return block_mask(noise, uncertain, config)


def pseudo_label_of(view: Tensor, cam: Tensor, labels: Tensor, config: TrainConfig) -> Tensor:
    """Pseudo label [B, S, S] of normalised views [B, 3, S, S] with multi-scale CAM [B, K, S, S] and labels [B, K]."""
    image = denormalise(view)
    image = (image.round() if config.image_levels == "round" else image.trunc()).clamp(0, 255)
    return refined_pseudo_label(image / 255, cam, labels, config.high_threshold, config.low_threshold)
