"""Scores of an inference: from the records of its images to tables."""

import csv
import io
from collections.abc import Iterable
from typing import Any

from rich.table import Table
from torch import Tensor

from fsr.csv_cells import cell
from fsr.errors import UserError
from fsr.inference.error_counts import ErrorTotals, add_pairs
from fsr.inference.image_record import ImageRecord
from fsr.metrics import CamScores, ConfusionMatrix
from fsr.quality import cam_quality, label_quality, miou_conventions, region_errors

TITLES = {
    "segmentation": "segmentation",
    "crf": "segmentation + CRF",
    "cam": "CAM",
    "aux_cam": "aux CAM",
    "pseudo_labels": "pseudo labels",
    "single_scale": "segmentation, single scale",
    "gated": "segmentation, class-gated",
}

OTHER_MIOUS = {
    "miou_predicted_too": "mIoU, classes only predicted as 0",
    "miou_unlabelled_missed": "mIoU, pixels without a label as misses",
}


class Totals:
    """The counts of all images, added up record by record."""

    def __init__(self, num_classes: int, threshold: float) -> None:
        self.num_classes, self.threshold = num_classes, threshold
        self.images = 0
        self.skipped: dict[str, str] = {}  # name and reason
        self.kinds: dict[str, ConfusionMatrix | CamScores] = {}
        self.errors = ErrorTotals(num_classes)

    def add(self, records: Iterable[ImageRecord]) -> "Totals":
        """Count these images; each must come once. Raises UserError for counts of more classes than there are."""
        for record in records:
            self.images += 1
            if "skipped" in record:
                self.skipped[record["name"]] = record["skipped"]
            found = record.get("counts", {})
            try:
                for kind, pairs in found.items():
                    add_pairs(self._of(kind).counts, pairs)
                if found:
                    confusion = {kind: self.confusion(kind, pairs) for kind, pairs in found.items()}
                    self.errors.add(confusion, record.get("errors", {}))
            except IndexError:
                raise UserError(
                    f"the record of image {record['name']} counts pixels of more than {self.num_classes} classes; "
                    "its results are of another data set"
                ) from None
        return self

    def _of(self, kind: str) -> ConfusionMatrix | CamScores:
        if kind not in self.kinds:
            is_cam = kind in ("cam", "aux_cam")
            self.kinds[kind] = (
                CamScores(self.num_classes, self.threshold) if is_cam else ConfusionMatrix(self.num_classes)
            )
        return self.kinds[kind]

    def matrix(self, kind: str) -> ConfusionMatrix:
        """The confusion matrix of a kind of labels; that of CAMs at the background threshold."""
        counts = self.kinds[kind]
        return counts.at(self.threshold) if isinstance(counts, CamScores) else counts

    def confusion(self, kind: str, pairs: list[int]) -> dict[int, int]:
        """The entries of an image's confusion matrix that are not 0, of its counts in a record that was added."""
        counts, entries = self.kinds[kind], zip(pairs[::2], pairs[1::2], strict=True)
        if isinstance(counts, ConfusionMatrix):
            return dict(entries)
        levels, above = counts.counts.shape[2], counts.thresholds.index(self.threshold)
        matrix: dict[int, int] = {}
        for entry, pixels in entries:
            cell, exceeded = divmod(entry, levels)
            if exceeded <= above:
                cell -= cell % self.num_classes  # background
            matrix[cell] = matrix.get(cell, 0) + pixels
        return matrix

    def scores(self) -> dict[str, dict[str, Any]]:
        """mIoU (as others count it, too), pixel accuracy and IoU by class of each kind of labels, as fractions.

        Empty without ground truth.
        """
        return {
            kind: label_quality(self.matrix(kind)) | miou_conventions(self.matrix(kind), self.unlabelled(kind))
            for kind in TITLES
            if kind in self.kinds
        }

    def unlabelled(self, kind: str) -> Tensor:
        """Pixels of each class of the ground truth that these labels leave open (255), [C]."""
        return self.matrix("segmentation").counts.sum(1) - self.matrix(kind).counts.sum(1)

    def error_scores(self) -> dict[str, dict[str, Any]]:
        """What is known of the errors of each kind of labels. Empty without ground truth."""
        return {kind: self.errors.of(kind, self.matrix(kind)) for kind in TITLES if kind in self.kinds}

    def confusion_csv(self, class_names: tuple[str, ...]) -> str:
        """The confusion matrix of each kind of labels: a line a class of the ground truth, its pixels by prediction.

        The last column is of pixels without a label.
        """
        text = io.StringIO()
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow(["labels", "ground truth", *map(cell, class_names), "no label"])
        for kind in TITLES:
            if kind in self.kinds:
                rows = zip(class_names, self.matrix(kind).counts.tolist(), self.unlabelled(kind).tolist(), strict=True)
                lines.writerows([kind, cell(name), *pixels, left_out] for name, pixels, left_out in rows)
        return text.getvalue()

    def cam_quality(self) -> dict[str, dict[str, Any]]:
        """How well CAMs and pseudo labels cover the objects: mIoU over background thresholds, and their errors."""
        quality: dict[str, dict[str, Any]] = {}
        for kind in ("cam", "aux_cam", "pseudo_labels"):
            if kind not in self.kinds:
                continue
            counts = self.kinds[kind]
            if isinstance(counts, CamScores):
                quality[kind] = cam_quality(counts)
            else:
                labelled, known = int(counts.counts.sum()), int(self.matrix("segmentation").counts.sum())
                quality[kind] = (
                    label_quality(counts) | region_errors(counts) | {"ignored": 1 - labelled / known if known else None}
                )
        return quality


def as_csv(scores: dict[str, dict[str, Any]], class_names: tuple[str, ...]) -> str:
    """A line a class, then mIoU and pixel accuracy; a column a kind of labels; fractions, empty where there is none."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["class", *scores])
    for class_id, name in enumerate(class_names):
        lines.writerow([cell(name), *(score["iou"][class_id] for score in scores.values())])
    for name in ("miou", "pixel_accuracy"):
        lines.writerow([name, *(score[name] for score in scores.values())])
    return text.getvalue()


def as_table(scores: dict[str, dict[str, Any]], class_names: tuple[str, ...]) -> Table:
    """The same for a terminal, in percent."""

    def percent(value: float | None) -> str:
        return "–" if value is None else f"{100 * value:.2f}"

    table = Table("class", *(TITLES[kind] for kind in scores), title="IoU, %")
    for column in table.columns[1:]:
        column.justify = "right"
    for class_id, name in enumerate(class_names):
        table.add_row(name, *(percent(score["iou"][class_id]) for score in scores.values()))
    table.add_section()
    table.add_row("mIoU", *(percent(score["miou"]) for score in scores.values()), style="bold")
    for name, title in other_mious(scores.values()).items():
        table.add_row(title, *(percent(score[name]) for score in scores.values()))
    table.add_row("pixel accuracy", *(percent(score["pixel_accuracy"]) for score in scores.values()))
    return table


def other_mious(scores: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Names and titles of those ways to count mIoU by which some of the scores would be another one."""
    differs = {name for score in scores for name in OTHER_MIOUS if score.get(name, score["miou"]) != score["miou"]}
    return {name: title for name, title in OTHER_MIOUS.items() if name in differs}
