"""What is counted of an image besides its confusion matrices, and the errors that the counts of all images tell."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fsr.boundaries import BoundaryCounts, TrimapCounts
from fsr.breakdown import Breakdown, Presence, largest_confusions
from fsr.calibration import CalibrationCounts
from fsr.metrics import ConfusionMatrix, counted_by_image
from fsr.quality import region_errors


class ErrorCounts(NamedTuple):
    """Counts of one kind of labels, each with its `counts`."""

    boundary: BoundaryCounts
    trimap: TrimapCounts
    calibration: CalibrationCounts

    @classmethod
    def none(cls, num_classes: int) -> "ErrorCounts":
        """Nothing counted yet."""
        return cls(BoundaryCounts(num_classes), TrimapCounts(num_classes), CalibrationCounts())


class ErrorCounter:
    """Counts the errors of a batch of label maps, on their device. Makes no host wait for a GPU."""

    def __init__(self, num_classes: int) -> None:
        self.counts = ErrorCounts.none(num_classes)

    def __call__(
        self,
        labels: Mapping[str, Tensor],
        pairs: Mapping[str, Tensor],
        confidence: Mapping[str, Tensor],
        ground_truth: Tensor,
    ) -> dict[str, dict[str, Tensor]]:
        """By kind of labels, each of the ErrorCounts by image, [B, …].

        Labels and ground truth are uint8 [B, H, W], `pairs` the labels' entries of a ConfusionMatrix. Counted are the
        kinds whose confidence is given, [B, H, W].
        """
        boundary, trimap, calibration = self.counts
        true, rings = boundary.classes(ground_truth, ground_truth), trimap.rings(ground_truth)
        found = {}
        for kind, sure in confidence.items():
            label = labels[kind]
            near = boundary.entries(boundary.classes(label, ground_truth), true, ground_truth)
            ring = trimap.entries(pairs[kind], rings)
            found[kind] = {
                "boundary": counted_by_image(near, boundary.counts),
                "trimap": counted_by_image(ring, trimap.counts),
                "calibration": calibration.of_images(sure, label, ground_truth),
            }
        return found


class ErrorTotals:
    """The errors of all images, added up image by image."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.presence = Presence(num_classes)
        self.breakdowns: dict[str, Breakdown] = {}
        self.counts: dict[str, ErrorCounts] = {}
        self.images = 0
        self.counted: dict[str, int] = {}  # by kind, the images whose ErrorCounts are known

    def add(self, confusion: Mapping[str, Mapping[int, int]], errors: Mapping[str, Mapping[str, list[int]]]) -> None:
        """Count an image by the confusion matrix of each kind, its entries that are not 0, and by the `errors` of its
        record. Raises IndexError as `add_pairs`."""
        self.images += 1
        matrices = {kind: self._matrix(entries) for kind, entries in confusion.items()}
        areas = matrices["segmentation"].sum(1)
        self.presence.add(areas)
        for kind, matrix in matrices.items():
            if kind not in self.breakdowns:
                self.breakdowns[kind] = Breakdown(self.num_classes)
            self.breakdowns[kind].add(matrix, areas)
        for kind, found in errors.items():
            if kind not in self.counts:
                self.counts[kind] = ErrorCounts.none(self.num_classes)
            self.counted[kind] = self.counted.get(kind, 0) + 1
            for name, pairs in found.items():
                add_pairs(getattr(self.counts[kind], name).counts, pairs)

    def _matrix(self, entries: Mapping[int, int]) -> Tensor:
        matrix = torch.zeros(self.num_classes**2, dtype=torch.int64)
        matrix[list(entries)] = torch.tensor([*entries.values()], dtype=torch.int64)
        return matrix.view(self.num_classes, self.num_classes)

    @property
    def uncounted(self) -> int:
        """Images whose ErrorCounts are not known: a version that had none has answered them."""
        return self.images - min(self.counted.values(), default=0)

    def of(self, kind: str, matrix: ConfusionMatrix) -> dict[str, Any]:
        """All that is known of the errors of a kind of labels, whose confusion matrix is given, as JSON values.

        Classes are told by their number. There are no `boundary`, `trimap` and `calibration` of kinds whose ErrorCounts
        are not taken, or not known of all images.
        """
        breakdown = self.breakdowns[kind]
        confused = largest_confusions(matrix.counts.tolist())
        told: dict[str, Any] = {
            **region_errors(matrix),
            "by_size": breakdown.by_size(),
            "by_number_of_classes": breakdown.by_number(),
            "most_confused": [{"truth": is_, "prediction": said, "share": share} for is_, said, share in confused],
            "co_occurrence": breakdown.co_occurrence(matrix, self.presence),
        }
        if self.counted.get(kind) == self.images:
            boundary, trimap, calibration = self.counts[kind]
            told["boundary"], told["trimap"] = boundary.measures(), trimap.curve()
            told["calibration"] = calibration.measures()
        return told


def add_pairs(counts: Tensor, pairs: list[int]) -> None:
    """Add index and count of each entry, in turns. Raises IndexError for an entry that there is not."""
    index, count = torch.tensor(pairs, dtype=torch.int64).view(-1, 2).T
    if len(index) and int(index.max()) >= counts.numel():
        raise IndexError(f"Expected entries below {counts.numel()}, got {int(index.max())}")
    counts.view(-1).index_add_(0, index, count)
