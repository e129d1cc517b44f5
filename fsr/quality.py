"""Quality of label maps and CAMs, class by class, as JSON values: fractions, and None where undefined."""

from typing import Any

import torch
from torch import Tensor

from fsr.metrics import CamScores, ConfusionMatrix


def label_quality(matrix: ConfusionMatrix) -> dict[str, Any]:
    """mIoU, pixel accuracy and IoU of each class."""
    miou, accuracy = fractions(torch.tensor([matrix.miou(), matrix.pixel_accuracy()], dtype=torch.float64))
    return {"miou": miou, "pixel_accuracy": accuracy, "iou": fractions(matrix.iou())}


def miou_conventions(matrix: ConfusionMatrix, unlabelled: Tensor) -> dict[str, float | None]:
    """The mIoU as others count it; `label_quality` takes the mean over the classes that are in the ground truth, of the
    pixels that have a label. `unlabelled` are the pixels of each class, [C], that were left without one (255).

    `miou_predicted_too`: a class that is only predicted counts as 0 (the mean over all classes but those in neither, as
    of NumPy's `nanmean`). `miou_unlabelled_missed`: a pixel without a label is a miss of its class.
    """
    counts = matrix.counts.double()
    both = counts.diagonal()
    missed = both / (counts.sum(0) + counts.sum(1) + unlabelled - both)
    present = counts.sum(1) + unlabelled > 0
    values = torch.stack([matrix.iou().nanmean(), missed[present].mean()])
    return dict(zip(("miou_predicted_too", "miou_unlabelled_missed"), fractions(values), strict=True))


def cam_quality(counts: CamScores) -> dict[str, Any]:
    """Quality and errors of the CAM at its background threshold, and its mIoU at every other."""
    matrix, curve = counts.at(counts.threshold), measured(counts.curve())
    best = best_threshold(curve)
    return {
        **label_quality(matrix),
        **region_errors(matrix),
        "threshold": counts.threshold,
        "best_miou": None if best is None else curve[best],
        "best_threshold": best,
        "curve": [list(point) for point in curve.items()],
    }


def region_errors(matrix: ConfusionMatrix) -> dict[str, Any]:
    """Precision, recall and errors of each class's region; precision and recall of the whole foreground.

    `false_positive` and `false_negative` are fractions of the union of ground truth and prediction. With the IoU they
    add up to 1. A class in neither is None.
    """
    counts = matrix.counts.double()
    hits, predicted, true = counts.diagonal(), counts.sum(0), counts.sum(1)
    union = predicted + true - hits
    inside = counts[1:, 1:].sum()
    return {
        "precision": fractions(hits / predicted),
        "recall": fractions(hits / true),
        "false_positive": fractions((predicted - hits) / union),
        "false_negative": fractions((true - hits) / union),
        "foreground_precision": fractions((inside / predicted[1:].sum())[None])[0],
        "foreground_recall": fractions((inside / true[1:].sum())[None])[0],
    }


def measured(curve: dict[float, float]) -> dict[float, float | None]:
    """mIoU by threshold, None where there is no ground truth to measure it by."""
    return dict(zip(curve, fractions(torch.tensor([*curve.values()], dtype=torch.float64)), strict=True))


def best_threshold(curve: dict[float, float | None]) -> float | None:
    """The threshold of the highest mIoU, None where none was measured."""
    known = {threshold: miou for threshold, miou in curve.items() if miou is not None}
    return max(known, key=known.__getitem__) if known else None


def fractions(values: Tensor) -> list[float | None]:
    """Numbers for JSON, None for NaN."""
    return [None if value != value else value for value in values.tolist()]
