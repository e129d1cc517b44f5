"""Swapped assignment: the student's CAM learns from the teacher's segmentation (CoSA, ECCV 2024)."""

import torch
import torch.nn.functional as F
from torch import Tensor

TEMPERATURE = 0.01


def assignment(segmentation: Tensor, labels: Tensor) -> Tensor:
    """How much each place belongs to each class: [B, K, h, w] in [0, 1], its rest to one is background.

    softmax(z / .01) over the background and the classes that labels [B, K] name, of segmentation logits z [B, C, h, w].
    """
    absent = F.pad(labels == 0, (1, 0))[:, :, None, None]  # the background never is
    logits = segmentation.float().masked_fill(absent, -torch.inf)
    return (logits / TEMPERATURE).softmax(dim=1)[:, 1:]


def swapped_assignment_loss(scores: Tensor, segmentation: Tensor, labels: Tensor) -> Tensor:
    """Multi-label soft margin between the student's CAM and the teacher's segmentation of the same view, a scalar.

    With y the teacher's `assignment` and s the student's class logits, both [B, K, h, w] on the patch grid, it is
    −mean(y log σ(s) + (1 − y) log(1 − σ(s))) over images, classes and places. Only the scores get a gradient.

    Source: CoSA, where the segmentation pseudo label guides the CAM ("Seg2CAM"). There the two maps may differ in size;
    the decoder and the CAM of this network have one grid, so nothing is resized. We are not sure whether the paper
    divides the CAM's logits by a temperature; here they are the classifier's, before the CAM's ReLU.

    Args:
        scores: the student's CAM before its ReLU, of all K classes.
        segmentation: the teacher's logits [B, C, h, w].
        labels: image-level labels [B, K], 0 or 1.
    """
    target = assignment(segmentation.detach(), labels)
    return F.multilabel_soft_margin_loss(scores.movedim(1, -1), target.movedim(1, -1))
