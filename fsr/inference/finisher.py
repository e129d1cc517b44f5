"""Writes the files of an image and its record."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fsr.data.image_set import ImageSet
from fsr.data.images import IGNORED
from fsr.data.palette import palette_png
from fsr.files import atomic_file, write_atomically
from fsr.inference.as_shown import heat_as_shown, labels_as_shown, overlay_as_shown
from fsr.inference.cam_maps import CamMaps, write_cam_maps
from fsr.inference.config import InferConfig
from fsr.inference.image_record import ImageRecord
from fsr.inference.journal import Results
from fsr.inference.postprocess import Answers
from fsr.metrics import ConfusionMatrix

JPEG_QUALITY = 85


class Answer(NamedTuple):
    """All that is written of one image, on the CPU."""

    name: str
    ground_truth: Tensor | None  # uint8 [H, W]
    labels: dict[str, Tensor]  # kind of labels: uint8 [H, W]
    counts: dict[str, Tensor]  # kind of scores: [entries of its counts]; empty without ground truth
    errors: dict[str, dict[str, Tensor]]  # kind of labels and ErrorCounts: [entries]; empty without ground truth
    cam_maps: CamMaps
    overlay: Tensor | None  # uint8 [H, W, 3]; None unless it is saved
    heats: dict[int, Tensor]  # class id: uint8 [H, W, 3]; empty unless they are saved
    cams: dict[int, Tensor]  # class id: uint8 [H, W], the levels of a plain picture's CAM; empty unless they are saved
    grids: list[np.ndarray]  # a scale: float16 [C, h, w]; empty unless they are saved

    @classmethod
    def of(cls, answers: Answers, i: int, name: str, ground_truth: Tensor | None) -> "Answer":
        """Image `i` of a batch's answers."""
        return cls(
            name,
            ground_truth,
            {kind: labels[i] for kind, labels in answers.labels.items()},
            {kind: counts[i] for kind, counts in answers.counts.items()},
            {kind: {name: of[i] for name, of in errors.items()} for kind, errors in answers.errors.items()},
            CamMaps(tuple(answers.classes[i].tolist()), answers.cam_maps[i].numpy()),
            None if answers.overlays is None else answers.overlays[i],
            dict(zip(answers.classes[i].tolist(), answers.heats[i], strict=True)) if answers.heats else {},
            dict(zip(answers.classes[i].tolist(), answers.cams[i], strict=True)) if answers.cams else {},
            [grid[i].numpy() for grid in answers.grids],
        )


Finished: TypeAlias = tuple[ImageRecord, list[np.ndarray]]  # record for the journal, logits to save


@dataclass(frozen=True)
class Finisher:
    """Writes answers as the configuration says. Safe to call from several threads."""

    config: InferConfig
    source: ImageSet
    results: Results

    def __call__(self, answer: Answer) -> Finished:
        """Write the files of an image."""
        results, name, class_names = self.results, answer.name, self.source.class_names
        if self.config.of_pictures:
            return self._of_picture(answer), answer.grids
        for kind, label in answer.labels.items():
            write_atomically(results.label_file(kind, name), palette_png(label.numpy()))
        write_cam_maps(results.cam_maps_file(name), answer.cam_maps)
        if answer.overlay is not None:
            write_jpeg(results.overlay_file(name), answer.overlay)
        for class_id, heat in answer.heats.items():
            write_jpeg(results.cam_file(name, class_names[class_id]), heat)
        return self._record(answer, answer.ground_truth), answer.grids

    def _of_picture(self, answer: Answer) -> ImageRecord:
        """Write the files of a plain picture, as large as it is shown; its record."""
        results, name, class_names = self.results, answer.name, self.source.class_names
        picture = self.source.picture(name, self.config.infer_set)
        for kind, label in answer.labels.items():
            final = labels_as_shown(label.numpy(), picture)
            write_atomically(results.label_file(kind, name), palette_png(final))
            if kind == self._final:
                areas = Image.fromarray(final).histogram()
                if self.config.save_overlays:
                    write_jpeg(results.overlay_file(name), overlay_as_shown(picture, final))
        write_cam_maps(results.cam_maps_file(name), answer.cam_maps)
        for class_id, cam in answer.cams.items():
            write_jpeg(results.cam_file(name, class_names[class_id]), heat_as_shown(picture, cam.numpy()))
        return {
            "name": name,
            "size": picture.size,
            "classes": [class_id for class_id in range(1, IGNORED) if areas[class_id]],
            "predicted": list(answer.cam_maps.classes),
            "areas": [number for class_id, pixels in enumerate(areas) if pixels for number in (class_id, pixels)],
        }

    @property
    def _final(self) -> str:
        """The kind of labels that is taken for the answer."""
        return "crf" if self.config.crf else "segmentation"

    def _record(self, answer: Answer, ground_truth: Tensor | None) -> ImageRecord:
        """The image's sparse counts, its mean IoU, and the classes in its ground truth or its prediction."""
        if ground_truth is None:
            return {"name": answer.name}
        final = self._final
        matrix = ConfusionMatrix(len(self.source.class_names))
        matrix.counts += answer.counts[final].view_as(matrix.counts)
        iou = matrix.miou()
        seen = torch.bincount(torch.cat([ground_truth.flatten(), answer.labels[final].flatten()])).nonzero()[:, 0]
        return {
            "name": answer.name,
            "iou": None if iou != iou else round(iou, 6),  # no pixel of the ground truth counts
            "classes": [class_id for class_id in seen.tolist() if class_id not in (0, IGNORED)],
            "counts": {kind: sparse(counts) for kind, counts in answer.counts.items()},
            "errors": {
                kind: {name: sparse(counts) for name, counts in errors.items()}
                for kind, errors in answer.errors.items()
            },
        }


def sparse(counts: Tensor) -> list[int]:
    """Index and count of each entry that is not 0, in turns."""
    where = counts.nonzero()[:, 0]
    pairs: list[int] = torch.stack([where, counts[where]], dim=1).flatten().tolist()
    return pairs


def write_jpeg(path: Path, pixels: Tensor) -> None:
    """Write 8-bit pixels [H, W, 3] as a JPEG file; into a file, not a buffer, Pillow encodes beside other threads."""
    with atomic_file(path) as file:
        Image.fromarray(pixels.numpy()).save(file, "JPEG", quality=JPEG_QUALITY)
