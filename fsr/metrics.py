"""Scores from counts: confusion matrices, CAM quality over background thresholds, F1 of the classes."""

from functools import lru_cache

import torch
from torch import Tensor

from fsr import distributed


class ConfusionMatrix:
    """Pixels by ground truth (row) and prediction (column). Counts add up over images, and over ranks by `reduce`."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)

    def add(self, prediction: Tensor, ground_truth: Tensor) -> None:
        """Count label maps of equal shape; a pixel whose ground truth or prediction is no class (255) is left out."""
        self.counts += entries_counted(self.entries(prediction, ground_truth), self.counts)

    def entries(self, prediction: Tensor, ground_truth: Tensor) -> Tensor:
        """Which of the counts each pixel adds to, by its number; the number of counts where it is left out."""
        n = self.num_classes
        pair = ground_truth.long() * n + prediction.long()
        return torch.where((ground_truth < n) & (prediction < n), pair, n * n)

    def reduce(self, device: torch.device) -> None:
        """Add up the counts of all ranks, exactly."""
        self.counts = distributed.total(self.counts.to(device)).cpu()

    def iou(self) -> Tensor:
        """Intersection over union of each class, [C]; NaN for a class in neither ground truth nor prediction."""
        counts = self.counts.double()
        both = counts.diagonal()
        return both / (counts.sum(0) + counts.sum(1) - both)

    def miou(self) -> float:
        """Mean IoU over the classes that are present in the ground truth."""
        return self.iou()[self.counts.sum(1) > 0].mean().item()

    def pixel_accuracy(self) -> float:
        """Fraction of pixels with the right label."""
        return (self.counts.diagonal().sum() / self.counts.sum()).item()


class CamScores:
    """mIoU of CAMs at every background threshold, from one pass: label = strongest class where its value is above."""

    def __init__(self, num_classes: int, threshold: float) -> None:
        self.threshold = threshold
        self.thresholds = sorted({round(0.05 * i, 2) for i in range(1, 20)} | {threshold})
        self.num_classes = num_classes
        # Pixels by ground truth, strongest class and how many thresholds its value exceeds.
        shape = (num_classes, num_classes, len(self.thresholds) + 1)
        self.counts = torch.zeros(shape, dtype=torch.int64)

    def add(self, value: Tensor, label: Tensor, ground_truth: Tensor) -> None:
        """Count CAMs given as `strongest_class` gives them, against ground truth of the same shape."""
        self.counts += entries_counted(self.entries(value, label, ground_truth), self.counts)

    def entries(self, value: Tensor, label: Tensor, ground_truth: Tensor) -> Tensor:
        """Which of the counts each pixel adds to, by its number; the number of counts where it is left out."""
        # Not right: a value equal to a threshold is background.
        exceeded = torch.bucketize(value, _thresholds(tuple(self.thresholds), value.dtype, value.device))
        entry = (ground_truth.long() * self.num_classes + label) * self.counts.shape[2] + exceeded
        return torch.where(ground_truth < self.num_classes, entry, self.counts.numel())

    def reduce(self, device: torch.device) -> None:
        """Add up the counts of all ranks, exactly."""
        self.counts = distributed.total(self.counts.to(device)).cpu()

    def at(self, threshold: float) -> ConfusionMatrix:
        """The confusion matrix at one of `thresholds`."""
        above = self.thresholds.index(threshold) + 1
        matrix = ConfusionMatrix(self.num_classes)
        matrix.counts = self.counts[:, :, above:].sum(2)
        matrix.counts[:, 0] += self.counts[:, :, :above].sum((1, 2))
        return matrix

    def curve(self) -> dict[float, float]:
        """mIoU at each threshold."""
        return {threshold: self.at(threshold).miou() for threshold in self.thresholds}


def entries_counted(entries: Tensor, counts: Tensor) -> Tensor:
    """How often each number of `counts` is among the entries, shaped like `counts`, on the CPU."""
    return torch.bincount(entries.flatten(), minlength=counts.numel() + 1)[:-1].view_as(counts).cpu()


def counted_by_image(entries: Tensor, counts: Tensor) -> Tensor:
    """How often each image [B, …] of entries has each number of `counts`, int32 [B, numbers], on their device; unlike
    torch.bincount on a GPU it makes no host wait."""
    entries = entries.flatten(1)
    sums = torch.zeros(len(entries), counts.numel() + 1, dtype=torch.int32, device=entries.device)
    return sums.scatter_add_(1, entries, sums.new_ones(1).expand_as(entries))[:, :-1]


@lru_cache
def _thresholds(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Cached, because copying them to a GPU makes the host wait."""
    return torch.tensor(values, dtype=dtype, device=device)


def class_f1(prediction: Tensor, ground_truth: Tensor) -> Tensor:
    """F1 of each image's classes, 2 TP / (2 TP + FP + FN): [N, K] bool and [N, K] bool to [N].

    An image without any class, of which none was predicted, has F1 0.
    """
    hits = (prediction & ground_truth).sum(1).double()
    return 2 * hits / (prediction.sum(1) + ground_truth.sum(1)).clamp(min=1)
