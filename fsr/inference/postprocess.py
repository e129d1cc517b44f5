"""Postprocessing of a batch, wherever its tensors are: label maps, CRF, counts for the scores, pictures."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fsr.crf import crf_pseudo_label, dense_crf_batch
from fsr.data.images import IGNORED
from fsr.inference.cam_maps import small_cams
from fsr.inference.config import InferConfig, Thresholds
from fsr.inference.multi_scale import MultiScale
from fsr.metrics import CamScores, ConfusionMatrix
from fsr.pictures import heat, overlay, pixels_of
from fsr.refine import refined_pseudo_label


class Answers(NamedTuple):
    """All that is written of B images of one size, in as few bytes as possible."""

    labels: dict[str, Tensor]  # kind of labels: uint8 [B, H, W]
    counts: dict[str, Tensor]  # kind of scores: int32 [B, entries of its counts]; empty without ground truth
    overlays: Tensor | None  # uint8 [B, H, W, 3]; None unless they are saved
    classes: list[Tensor]  # [P_i] class ids of image i from 1
    cam_maps: list[Tensor]  # an image: uint8 [2, P_i, h, w], its top and aux CAMs, small
    heats: list[Tensor]  # an image: uint8 [P_i, H, W, 3], one a class; empty unless they are saved
    cams: list[Tensor]  # an image: uint8 [P_i, H, W], levels of its top CAMs; empty unless plain pictures' are saved
    grids: list[Tensor]  # a scale: float16 [B, C, h, w]; empty unless they are saved


@dataclass(frozen=True)
class Postprocessor:
    """Postprocesses the network's predictions as the configuration says. Makes no host wait for a GPU."""

    config: InferConfig
    thresholds: Thresholds
    num_classes: int

    @cached_property
    def matrix(self) -> ConfusionMatrix:
        """Knows the entries of a confusion matrix."""
        return ConfusionMatrix(self.num_classes)

    @cached_property
    def cam_scores(self) -> CamScores:
        """Knows the entries of the counts of CAMs."""
        return CamScores(self.num_classes, self.thresholds.background)

    @torch.no_grad()
    def __call__(self, seen: MultiScale, pictures: Tensor, ground_truth: Tensor | None) -> Answers:
        """The answers for 8-bit pictures [B, 3, H, W] with their ground truth [B, H, W]."""
        config = self.config
        labels = {"segmentation": seen.logits.max(dim=1).indices.byte()}
        if config.crf:
            labels["crf"] = _crf_labels(pictures, seen.logits)
        if config.pseudo_labels != "none":
            images = zip(pictures, seen.cams, seen.classes, strict=True)
            labels["pseudo_labels"] = torch.stack([self._pseudo_label(*image) for image in images])
        counts: dict[str, Tensor] = {}
        if ground_truth is not None:
            strongest = {"cam": _strongest(seen.cams, seen.classes), "aux_cam": _strongest(seen.aux_cams, seen.classes)}
            entries = {kind: self.matrix.entries(label, ground_truth) for kind, label in labels.items()}
            counts = {kind: _counted(entry, self.matrix.counts) for kind, entry in entries.items()}
            for kind, cam in strongest.items():
                counts[kind] = _counted(self.cam_scores.entries(*cam, ground_truth), self.cam_scores.counts)
        shown, final = pictures / 255, labels["crf" if config.crf else "segmentation"]
        here = not config.of_pictures  # which are drawn as they are shown, on what the network may not have seen
        heats = zip(shown, seen.cams, strict=True) if config.save_cam and here else ()
        return Answers(
            labels,
            counts,
            pixels_of(overlay(shown, final)) if config.save_overlays and here else None,
            seen.classes,
            list(map(small_cams, seen.cams, seen.aux_cams)),
            [pixels_of(heat(picture, cams)) for picture, cams in heats],
            [(cams * 255).round().byte() for cams in seen.cams] if config.save_cam and not here else [],
            [grid.half() for grid in seen.grids] if config.save_logits else [],
        )

    def _pseudo_label(self, picture: Tensor, cams: Tensor, classes: Tensor) -> Tensor:
        """Label map uint8 [H, W] from the CAMs of an image's classes, 255 where it is ignored."""
        high, low = self.thresholds.high, self.thresholds.low
        if len(classes) == 0:
            return torch.zeros_like(picture[0])
        if self.config.pseudo_labels == "crf":
            return crf_pseudo_label(picture, cams, classes, high, low)
        present = torch.ones_like(classes, dtype=torch.float32)[None]
        places = refined_pseudo_label(picture[None] / 255, cams[None], present, high, low)[0]
        ids = F.pad(classes, (1, IGNORED - len(classes)), value=IGNORED)  # place 0 is the background
        ids[0] = 0
        return ids.byte()[places]


def _crf_labels(pictures: Tensor, logits: Tensor) -> Tensor:
    """Label maps uint8 [B, H, W] after the dense CRF. A GPU takes a batch at once, a core image after image."""
    size = len(pictures) if logits.is_cuda else 1
    parts = zip(torch.split(pictures, size), torch.split(logits, size), strict=True)
    return torch.cat([dense_crf_batch(part, of.softmax(1)).max(dim=1).indices.byte() for part, of in parts])


def _strongest(cams: list[Tensor], classes: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Value and class of each image's strongest CAM, each [B, H, W]; 0 where an image has no class."""
    values, best = [], []
    for cam, ids in zip(cams, classes, strict=True):
        if len(cam) == 0:
            cam, ids = cam.new_zeros(1, *cam.shape[1:]), ids.new_zeros(1)
        value, place = cam.max(dim=0)
        values.append(value)
        best.append(ids[place])
    return torch.stack(values), torch.stack(best)


def _counted(entries: Tensor, counts: Tensor) -> Tensor:
    """How often each image [B, H, W] of entries has each number of `counts`, int32 [B, …]; unlike torch.bincount on a
    GPU it makes no host wait."""
    entries = entries.flatten(1)
    sums = torch.zeros(len(entries), counts.numel() + 1, dtype=torch.int32, device=entries.device)
    return sums.scatter_add_(1, entries, sums.new_ones(1).expand_as(entries))[:, :-1]
