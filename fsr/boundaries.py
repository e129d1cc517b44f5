"""How good labels are near boundaries: boundary IoU and the trimap curve, from counts that add up over images.

Distances are those of a chessboard, the larger of rows and columns: what eroding with a 3 x 3 square counts.
"""

from itertools import pairwise
from math import hypot
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fsr.metrics import ConfusionMatrix
from fsr.quality import fractions

DIAGONAL_SHARE = 0.02
WIDTHS = (1, 2, 3, 5, 8, 12, 20, 30, 40)  # pixels from a true boundary


def boundary_width(height: int, width: int) -> int:
    """How many pixels from a contour boundary IoU looks: 2 % of the image's diagonal, rounded, at least 1."""
    return max(1, round(DIAGONAL_SHARE * hypot(height, width)))


def boundary_regions(labels: Tensor, known: Tensor, distance: int) -> Tensor:
    """The known pixels, bool [B, H, W], of which a known pixel with another label is within `distance`.

    What is outside the image has another label, as in the released implementation of boundary IoU, which pads with
    zeros. Labels are uint8 [B, H, W]. Pixels that are not `known` are on no side of a contour.
    """
    highest = _window_max(torch.where(known, labels, 0), distance)
    lowest = 255 - _window_max(torch.where(known, 255 - labels, 0), distance)
    near = (highest > labels) | (lowest < labels)
    near[:, :distance] = near[:, -distance:] = near[..., :distance] = near[..., -distance:] = True
    return near & known


class BoundaryCounts:
    """Pixels by the class in whose boundary region they lie: of the ground truth (row), of the prediction (column).

    Boundary IoU (Cheng et al., CVPR 2021) of a class is the IoU of the two regions: pixels of the class that are within
    2 % of the image's diagonal of its contour. The last row and column are of pixels in no such region. Pixels whose
    ground truth is ignored are in neither region, and no contour lies where only they are between two classes, in the
    prediction as in the ground truth: a prediction that is right wherever it is judged scores 1.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.counts = torch.zeros(num_classes + 1, num_classes + 1, dtype=torch.int64)

    def classes(self, labels: Tensor, ground_truth: Tensor) -> Tensor:
        """Of labels, uint8 [B, H, W], the class in whose boundary region each pixel lies, `num_classes` in none.

        The labels may be the ground truth itself.
        """
        distance = boundary_width(labels.shape[1], labels.shape[2])
        known = (ground_truth < self.num_classes) & (labels < self.num_classes)
        return torch.where(boundary_regions(labels, known, distance), labels, self.num_classes)

    def entries(self, predicted: Tensor, true: Tensor, ground_truth: Tensor) -> Tensor:
        """Which of the counts each pixel adds to, by the `classes` of prediction and ground truth; the number of counts
        where the ground truth is ignored."""
        entry = true.int() * (self.num_classes + 1) + predicted
        return torch.where(ground_truth < self.num_classes, entry, self.counts.numel()).long()

    def measures(self) -> dict[str, Any]:
        """Boundary IoU of each class, None in neither map; their mean over the classes of the ground truth."""
        both, true, predicted = self.counts.diagonal()[:-1], self.counts.sum(1)[:-1], self.counts.sum(0)[:-1]
        iou = both.double() / (true + predicted - both)
        return {"miou": fractions(iou[true > 0].mean()[None])[0], "iou": fractions(iou)}


class TrimapCounts:
    """Confusion matrices of the pixels by their distance from the nearest true boundary.

    A pixel is within r of a boundary if a pixel within r has another ground truth. Ignored pixels count as another one:
    VOC draws them where objects end, and the trimap of Krähenbühl & Koltun 2011 (of DeepLab, too) grows from them.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        # Ring i is farther than WIDTHS[i - 1], up to WIDTHS[i]; the last one is all the rest.
        self.counts = torch.zeros(len(WIDTHS) + 1, num_classes, num_classes, dtype=torch.int64)

    def rings(self, ground_truth: Tensor) -> Tensor:
        """The ring of each pixel of a ground truth, uint8 [B, H, W]."""
        highest, lowest = _window_max(ground_truth, 1), 255 - _window_max(255 - ground_truth, 1)
        band = ((highest > ground_truth) | (lowest < ground_truth)).byte()
        ring = len(WIDTHS) - band
        # What is within r of another label is within r - 1 of a pixel that touches one.
        for before, width in pairwise(WIDTHS):
            band = _window_max(band, width - before)
            ring -= band
        return ring

    def entries(self, pairs: Tensor, rings: Tensor) -> Tensor:
        """Which of the counts each pixel adds to, by its entry of a confusion matrix (`ConfusionMatrix.entries`)."""
        matrix = self.num_classes**2
        return torch.where(pairs < matrix, rings.long() * matrix + pairs, self.counts.numel())

    def curve(self) -> list[list[float | None]]:
        """Each width, and the mIoU of the pixels within it; None where there are none."""
        within = self.counts.cumsum(0)
        points: list[list[float | None]] = []
        for width, counts in zip(WIDTHS, within, strict=False):
            matrix = ConfusionMatrix(self.num_classes)
            matrix.counts = counts
            points.append([width, *fractions(torch.tensor([matrix.miou()], dtype=torch.float64))])
        return points


def _window_max(values: Tensor, radius: int) -> Tensor:
    """The largest value of the square of 2 radius + 1 pixels around each pixel, uint8 [B, H, W]; outside it is 0.

    Windows double, so that their number grows with the logarithm of the radius.
    """
    for dim, sides in ((1, (0, 0, radius, radius)), (2, (radius, radius))):
        values, reach, length = F.pad(values, sides), 1, 2 * radius + 1
        while reach < length:
            step = min(reach, length - reach)
            size = values.shape[dim] - step
            values = torch.maximum(values.narrow(dim, 0, size), values.narrow(dim, step, size))
            reach += step
    return values
