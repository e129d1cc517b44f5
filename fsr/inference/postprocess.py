"""Postprocessing of one image: CRF, label maps, files, and its counts for the scores."""

import itertools
from dataclasses import dataclass
from io import BytesIO
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fsr.crf import crf_pseudo_label, dense_crf_batch
from fsr.data.images import IGNORED
from fsr.data.palette import palette_png
from fsr.files import write_atomically
from fsr.inference.config import InferConfig, Thresholds
from fsr.inference.journal import Results
from fsr.metrics import CamScores, ConfusionMatrix
from fsr.pictures import heat, overlay, pixels_of, strip
from fsr.refine import refined_pseudo_label

JPEG_QUALITY = 85


class Answer(NamedTuple):
    """The network's predictions for one image, on the CPU."""

    name: str
    image: Tensor  # uint8 [3, H, W]
    ground_truth: Tensor | None  # uint8 [H, W]
    logits: Tensor  # [C, H, W] segmentation
    classes: Tensor  # [P] class ids from 1
    cams: Tensor  # [P, H, W] top CAMs in [0, 1]
    aux_cams: Tensor  # [P, H, W]
    grids: list[np.ndarray]  # a scale: float16 [C, h, w]; empty unless they are saved


Finished: TypeAlias = tuple[dict[str, Any], list[np.ndarray]]  # record for the journal, logits to save


@dataclass(frozen=True)
class Finisher:
    """Postprocesses answers as the configuration says. Safe to call from several threads."""

    config: InferConfig
    thresholds: Thresholds
    class_names: tuple[str, ...]
    results: Results

    def __call__(self, answer: Answer) -> Finished:
        """Write the files of an image."""
        labels = {"segmentation": answer.logits.max(dim=0).indices.to(torch.uint8)}
        if self.config.crf:
            marginals = dense_crf_batch(answer.image[None], answer.logits.softmax(0)[None])[0]
            labels["crf"] = marginals.max(dim=0).indices.to(torch.uint8)
        if self.config.pseudo_labels != "none":
            labels["pseudo_labels"] = self._pseudo_label(answer)
        for kind, label in labels.items():
            write_atomically(self.results.label_file(kind, answer.name), palette_png(label.numpy()))
        value, strongest = self._strongest(answer, answer.cams)
        self._draw(answer, labels, value)
        record: dict[str, Any] = {"name": answer.name}
        if answer.ground_truth is not None:
            record |= self._counts(answer, answer.ground_truth, labels, value, strongest)
        return record, answer.grids

    def final(self, labels: dict[str, Tensor]) -> Tensor:
        """The segmentation after the CRF, if there is one."""
        return labels["crf" if self.config.crf else "segmentation"]

    def _strongest(self, answer: Answer, cams: Tensor) -> tuple[Tensor, Tensor]:
        """Value and class of the strongest CAM, each [H, W]."""
        if len(cams) == 0:
            return torch.zeros(cams.shape[1:]), torch.zeros(cams.shape[1:], dtype=torch.int64)
        value, best = cams.max(dim=0)
        return value, answer.classes[best]

    def _pseudo_label(self, answer: Answer) -> Tensor:
        """Label map uint8 [H, W] from the CAMs of the image's classes, 255 where it is ignored."""
        high, low = self.thresholds.high, self.thresholds.low
        if len(answer.classes) == 0:
            return torch.zeros(answer.image.shape[1:], dtype=torch.uint8)
        if self.config.pseudo_labels == "crf":
            return crf_pseudo_label(answer.image, answer.cams, answer.classes, high, low)
        places = refined_pseudo_label(
            answer.image[None] / 255, answer.cams[None], torch.ones(1, len(answer.classes)), high, low
        )[0]
        ids = torch.full((256,), IGNORED, dtype=torch.uint8)
        ids[: len(answer.classes) + 1] = torch.cat([torch.zeros(1, dtype=torch.int64), answer.classes]).byte()
        return ids[places]

    def _counts(
        self, answer: Answer, ground_truth: Tensor, labels: dict[str, Tensor], value: Tensor, strongest: Tensor
    ) -> dict[str, Any]:
        """The image's sparse counts, its mean IoU, and the classes in its ground truth or its prediction."""
        matrices = {kind: ConfusionMatrix(len(self.class_names)) for kind in labels}
        for kind, matrix in matrices.items():
            matrix.add(labels[kind], ground_truth)
        cams = {kind: CamScores(len(self.class_names), self.thresholds.background) for kind in ("cam", "aux_cam")}
        cams["cam"].add(value, strongest, ground_truth)
        cams["aux_cam"].add(*self._strongest(answer, answer.aux_cams), ground_truth)
        final = matrices["crf" if self.config.crf else "segmentation"]
        iou = final.miou()
        seen = torch.unique(torch.cat([ground_truth.flatten(), self.final(labels).flatten()]))
        return {
            "iou": None if iou != iou else round(iou, 6),  # no pixel of the ground truth counts
            "classes": [int(class_id) for class_id in seen if class_id not in (0, IGNORED)],
            "counts": {kind: sparse(scores.counts) for kind, scores in (matrices | cams).items()},
        }

    def _draw(self, answer: Answer, labels: dict[str, Tensor], value: Tensor) -> None:
        """The pictures of an image."""
        final = self.final(labels)
        picture = answer.image / 255
        tiles = strip(picture, answer.ground_truth, value, [labels["segmentation"]] + [final] * self.config.crf)
        write_atomically(self.results.preview_file(answer.name), jpeg(tiles))
        if self.config.save_overlays:
            write_atomically(self.results.overlay_file(answer.name), jpeg(overlay(picture, final)))
        if self.config.save_cam:
            for class_id, cam in zip(answer.classes.tolist(), answer.cams, strict=True):
                file = self.results.cam_file(answer.name, self.class_names[class_id])
                write_atomically(file, jpeg(heat(picture, cam)))


def sparse(counts: Tensor) -> list[int]:
    """Index and count of each entry that is not 0, in turns."""
    flat = counts.flatten()
    where = flat.nonzero()[:, 0]
    return list(itertools.chain.from_iterable(zip(where.tolist(), flat[where].tolist(), strict=True)))


def jpeg(picture: Tensor) -> bytes:
    """A picture [3, H, W] in [0, 1] as a JPEG file."""
    stream = BytesIO()
    Image.fromarray(pixels_of(picture)).save(stream, "JPEG", quality=JPEG_QUALITY)
    return stream.getvalue()
