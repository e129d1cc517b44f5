"""Whether a segmentation is as often right as it is sure: the reliability curve and its error."""

from typing import Any

import torch
from torch import Tensor

from fsr.data.images import IGNORED

BINS = 15
STEPS = 1 << 20  # to an answer of confidence 1: whole numbers add up to the same sum in every order


def confidence_of(logits: Tensor, highest: Tensor) -> Tensor:
    """The largest probability of the softmax over the classes, of logits [B, C, H, W] and their maximum [B, H, W]."""
    return (logits - highest[:, None]).exp_().sum(dim=1).reciprocal_()


class CalibrationCounts:
    """By bin of the confidence: pixels that are wrong, pixels that are right, and the sum of their confidences.

    The bins are of equal width, each without its lower and with its upper end (Guo et al., ICML 2017). Confidences are
    summed as whole numbers of 1 / STEPS.
    """

    def __init__(self) -> None:
        self.counts = torch.zeros(BINS, 3, dtype=torch.int64)

    def of_images(self, confidence: Tensor, labels: Tensor, ground_truth: Tensor) -> Tensor:
        """The counts of each image, int64 [B, bins * 3], of the confidence in its labels, each [B, H, W].

        Pixels whose ground truth is ignored are left out.
        """
        places = 3 * (confidence * BINS).ceil_().sub_(1).clamp_(0, BINS - 1).long()  # bucketize takes 20 times as long
        known = ground_truth != IGNORED
        steps = (confidence * STEPS).round_().long()
        counts = torch.zeros(len(labels), 3 * BINS, dtype=torch.int64, device=labels.device)
        for place, amount in ((places + (labels == ground_truth), known.long()), (places + 2, steps * known)):
            counts.scatter_add_(1, place.flatten(1), amount.flatten(1))
        return counts

    def measures(self) -> dict[str, Any]:
        """The expected calibration error, and of each bin its ends, pixels, mean confidence and accuracy.

        None where there is no pixel.
        """
        wrong, right, steps = (column.tolist() for column in self.counts.T)
        pixels = [both[0] + both[1] for both in zip(wrong, right, strict=True)]
        known = sum(pixels)
        gaps = sum(abs(hits - sure / STEPS) for hits, sure in zip(right, steps, strict=True))
        bins = [
            {
                "from": place / BINS,
                "to": (place + 1) / BINS,
                "pixels": count,
                "confidence": steps[place] / STEPS / count if count else None,
                "accuracy": right[place] / count if count else None,
            }
            for place, count in enumerate(pixels)
        ]
        return {"ece": gaps / known if known else None, "bins": bins}
