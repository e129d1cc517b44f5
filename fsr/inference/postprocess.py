"""Postprocessing of a batch, wherever its tensors are: label maps, CRF, counts for the scores, pictures."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fsr.calibration import confidence_of
from fsr.crf import crf_pseudo_label, dense_crf_batch
from fsr.data.images import IGNORED
from fsr.inference.cam_maps import small_cams
from fsr.inference.class_gating import gated
from fsr.inference.config import InferConfig, Thresholds
from fsr.inference.error_counts import ErrorCounter
from fsr.inference.multi_scale import MultiScale
from fsr.metrics import CamScores, ConfusionMatrix, counted_by_image
from fsr.pictures import heat, overlay, pixels_of
from fsr.refine import refined_pseudo_label
from fsr.resize import resize


class Answers(NamedTuple):
    """All that is written of B images of one size, in as few bytes as possible."""

    labels: dict[str, Tensor]  # kind of labels: uint8 [B, H, W]
    counts: dict[str, Tensor]  # kind of scores: int32 [B, entries of its counts]; empty without ground truth
    errors: dict[str, dict[str, Tensor]]  # kind of labels and ErrorCounts: [B, entries]; empty without ground truth
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

    @cached_property
    def count_errors(self) -> ErrorCounter:
        """Counts what else is told of errors."""
        return ErrorCounter(self.num_classes)

    @torch.no_grad()
    def __call__(self, seen: MultiScale, pictures: Tensor, ground_truth: Tensor | None) -> Answers:
        """The answers for 8-bit pictures [B, 3, H, W] with their ground truth [B, H, W]."""
        config = self.config
        labels: dict[str, Tensor] = {}
        confidence: dict[str, Tensor] = {}  # which only the ground truth asks for

        def choose(kind: str, logits: Tensor) -> None:
            highest = logits.max(dim=1)
            labels[kind] = highest.indices.byte()
            if ground_truth is not None:
                confidence[kind] = confidence_of(logits, highest.values)

        choose("segmentation", seen.logits)
        if config.crf:
            sharpest = _after_crf(pictures, seen.logits)
            labels["crf"], confidence["crf"] = sharpest.indices, sharpest.values
        if config.pseudo_labels != "none":
            images = zip(pictures, seen.cams, seen.classes, strict=True)
            labels["pseudo_labels"] = torch.stack([self._pseudo_label(*image) for image in images])
        if config.single_scale:
            assert seen.upright is not None, "the configuration asks for scale 1"
            choose("single_scale", resize(seen.upright, (pictures.shape[2], pictures.shape[3])))
        if config.class_gating:
            assert seen.class_logits is not None, "the configuration asks for scale 1"
            choose("gated", gated(seen.logits, seen.class_logits, config.gate_threshold))
        counts: dict[str, Tensor] = {}
        errors: dict[str, dict[str, Tensor]] = {}
        if ground_truth is not None:
            strongest = {"cam": _strongest(seen.cams, seen.classes), "aux_cam": _strongest(seen.aux_cams, seen.classes)}
            entries = {kind: self.matrix.entries(label, ground_truth) for kind, label in labels.items()}
            counts = {kind: counted_by_image(entry, self.matrix.counts) for kind, entry in entries.items()}
            for kind, cam in strongest.items():
                counts[kind] = counted_by_image(self.cam_scores.entries(*cam, ground_truth), self.cam_scores.counts)
            errors = self.count_errors(labels, entries, confidence, ground_truth)
        shown, final = pictures / 255, labels["crf" if config.crf else "segmentation"]
        here = not config.of_pictures  # which are drawn as they are shown, on what the network may not have seen
        heats = zip(shown, seen.cams, strict=True) if config.save_cam and here else ()
        return Answers(
            labels,
            counts,
            errors,
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


class _Sharpest(NamedTuple):
    """Of each pixel the largest marginal of the dense CRF."""

    values: Tensor  # float32 [B, H, W]
    indices: Tensor  # its class, uint8 [B, H, W]


def _after_crf(pictures: Tensor, logits: Tensor) -> _Sharpest:
    """The dense CRF of the softmax of logits. A GPU takes a batch at once, a core image after image."""
    size = len(pictures) if logits.is_cuda else 1
    parts = zip(torch.split(pictures, size), torch.split(logits, size), strict=True)
    largest = [dense_crf_batch(part, of.softmax(1)).max(dim=1) for part, of in parts]
    return _Sharpest(torch.cat([of.values for of in largest]), torch.cat([of.indices.byte() for of in largest]))


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
