"""Scores by what an image shows: how large its objects are, how many classes it has, in whose company it errs.

All of it follows from the confusion matrices of single images, and adds up over images.
"""

from typing import Any

import torch
from torch import Tensor

from fsr.metrics import ConfusionMatrix
from fsr.quality import fractions

SIZES = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, None)}
"""COCO's areas in pixels, from (included) and to (not included)."""
MOST_CLASSES = 4
"""Images with as many classes, or more, are counted together."""
LARGEST_CONFUSIONS = 12
COMPANIONS = 3
"""How many classes are told for each class's false positives."""


class Presence:
    """Which classes images show together: images by pair of classes, [C, C]; the diagonal is a class's own images."""

    def __init__(self, num_classes: int) -> None:
        self.images = torch.zeros(num_classes, num_classes, dtype=torch.int64)

    def add(self, areas: Tensor) -> None:
        """Count an image with so many pixels of each class, [C], in its ground truth."""
        shown = (areas > 0).long()
        self.images += shown[:, None] * shown


class Breakdown:
    """The counts of one kind of labels.

    An object's size is the area of its class in the image: label maps do not tell the objects of a class apart, and
    what is wrongly said to be of a class belongs to none of them. False positives of classes that an image has not are
    therefore in no size. Background has no size, and does not count as one of an image's classes.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.sizes = torch.zeros(len(SIZES), num_classes, 3, dtype=torch.int64)  # pixels: right, of the class, said
        self.numbers = torch.zeros(MOST_CLASSES + 1, num_classes, num_classes, dtype=torch.int64)  # confusion matrices
        self.images = torch.zeros(MOST_CLASSES + 1, dtype=torch.int64)
        self.company = torch.zeros(num_classes, num_classes, dtype=torch.int64)  # false positives by class also shown

    def add(self, matrix: Tensor, areas: Tensor) -> None:
        """Count an image by its confusion matrix [C, C] and the pixels of each class in its ground truth [C].

        The matrix has fewer pixels of a class where the labels leave some open.
        """
        right, true, said = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
        if not areas.any():
            return  # all of its ground truth is ignored
        ends = torch.tensor([end for _, end in SIZES.values() if end is not None])
        objects = areas[1:].nonzero()[:, 0] + 1
        size = torch.bucketize(areas[objects], ends, right=True)
        self.sizes[size, objects] += torch.stack([right, true, said], dim=1)[objects]
        number = min(len(objects), MOST_CLASSES)
        self.numbers[number] += matrix
        self.images[number] += 1
        self.company += (said - right)[:, None] * (areas > 0)

    def by_size(self) -> dict[str, Any]:
        """mIoU and IoU of each class over its objects of a size, None where there are none."""
        right, true, said = self.sizes.double().unbind(2)
        iou = right / (true + said - right)
        return {
            name: {"from": ends[0], "to": ends[1], "miou": mean(iou[place]), "iou": fractions(iou[place])}
            for place, (name, ends) in enumerate(SIZES.items())
        }

    def by_number(self) -> list[dict[str, Any]]:
        """Of the images with no class, one, two, …: how many they are, and mIoU over the classes of their ground truth.

        The last ones have `classes` or more.
        """
        rows = []
        for number, counts in enumerate(self.numbers):
            matrix = ConfusionMatrix(self.num_classes)
            matrix.counts = counts
            rows.append({"classes": number, "images": int(self.images[number]), "miou": mean(present_iou(matrix))})
        return rows

    def co_occurrence(self, matrix: ConfusionMatrix, presence: Presence) -> list[dict[str, Any]]:
        """Of each class but background, what its false positives lie on, and which classes their images show besides.

        `on`: other classes by their share of these pixels. `with`: the share that is in images that show the other
        class, too, and how many `images` show both; `usual` is that number's share of the images that show this class.
        The largest shares come first.
        """
        rows = []
        for class_id in range(1, self.num_classes):
            wrong = matrix.counts[:, class_id].clone()
            wrong[class_id] = 0
            total, shown = int(wrong.sum()), int(presence.images[class_id, class_id])
            company = self.company[class_id].clone()
            company[[0, class_id]] = 0
            beside = [
                {
                    "class": other,
                    "share": pixels / total,
                    "images": int(presence.images[class_id, other]),
                    "usual": int(presence.images[class_id, other]) / shown if shown else None,
                }
                for other, pixels in largest(company, COMPANIONS)
            ]
            on = [{"class": other, "share": pixels / total} for other, pixels in largest(wrong, COMPANIONS)]
            said = int(matrix.counts[:, class_id].sum())
            rows.append(
                {
                    "class": class_id,
                    "images": shown,
                    "false_positives": total,
                    "share": total / said if said else None,
                    "on": on,
                    "with": beside,
                }
            )
        return rows


def largest_confusions(matrix: list[list[int]]) -> list[tuple[int, int, float]]:
    """Class of the ground truth, class of the prediction, share of the former's pixels: where that is largest."""
    sums = [sum(row) or 1 for row in matrix]
    pairs = [
        (true, said, pixels / sums[true])
        for true, row in enumerate(matrix)
        for said, pixels in enumerate(row)
        if pixels and true != said
    ]
    return sorted(pairs, key=lambda pair: -pair[2])[:LARGEST_CONFUSIONS]


def largest(counts: Tensor, most: int) -> list[tuple[int, int]]:
    """Place and value of the largest counts that are not 0, of equal ones the first."""
    order = counts.argsort(descending=True, stable=True)[:most].tolist()
    return [(place, int(counts[place])) for place in order if counts[place]]


def present_iou(matrix: ConfusionMatrix) -> Tensor:
    """IoU of the classes that are in the ground truth."""
    return matrix.iou()[matrix.counts.sum(1) > 0]


def mean(values: Tensor) -> float | None:
    """Of those that are not NaN; None where there is none."""
    return fractions(values.nanmean()[None])[0]
