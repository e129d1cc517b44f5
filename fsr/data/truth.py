"""Whether masks are the ground truth of their images: what a whole set of them tells beside its labels.

A few masks of every data set contradict its annotations; a renumbered palette, another set's masks under the right
names, or masks of 0 and 255 alone contradict them nearly everywhere.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fsr.data.images import IGNORED

MOST_CONTRADICTIONS = 0.02  # of the masks of a set
MOST_IGNORED = 0.5  # of the pixels of a set; VOC has 5 %
_FEW = 8  # masks, of which a set's habits cannot be told


class Truth(NamedTuple):
    """What the mask of one image says, and what its annotation does."""

    name: str
    labels: tuple[int, ...] | None
    """Classes by the annotation, None without one."""
    drawn: tuple[int, ...]
    """Classes of the mask, but for background and ignored pixels."""
    ignored: float
    """Fraction of its pixels."""

    @property
    def contradicts(self) -> bool:
        """Whether it shows a class that its image has not, or none of those that it has."""
        if self.labels is None:
            return False
        return not set(self.drawn) <= set(self.labels) or bool(self.labels and not self.drawn)


def drawn_in(ground_truth: np.ndarray) -> tuple[tuple[int, ...], float]:
    """Classes of a mask, uint8 [H, W], and the fraction of its pixels that are to be ignored."""
    counts = np.bincount(ground_truth.ravel(), minlength=IGNORED + 1)
    drawn = tuple((np.flatnonzero(counts[1:IGNORED]) + 1).tolist())
    return drawn, float(counts[IGNORED] / counts.sum())


def wrong_truth(split: str, truths: Sequence[Truth], class_names: Sequence[str]) -> str | None:
    """Why the masks of a set cannot be its ground truth, in a sentence; None if they may be."""
    many = f"{len(truths)} masks of {split}"
    wrong = [truth for truth in truths if truth.contradicts]
    if len(wrong) > MOST_CONTRADICTIONS * len(truths):
        return f"{len(wrong)} of {many} contradict the annotations of their images, first {_contradiction(wrong[0])}"
    if truths and not any(truth.drawn for truth in truths):
        return f"none of {many} holds a class, but background and pixels to be ignored (255)"
    ignored = sum(truth.ignored for truth in truths) / max(1, len(truths))
    if len(truths) >= _FEW and ignored > MOST_IGNORED:
        return f"{many} are to be ignored (255) in {ignored:.0%} of their pixels"
    if len(truths) >= _FEW and all(len(truth.drawn) <= 1 for truth in truths):
        several = [truth for truth in truths if len(truth.labels or ()) > 1]
        if len(several) >= _FEW // 2:
            return (
                f"none of {many} holds more than one class, but the annotations of {len(several)} images do, first "
                f"{several[0].name}"
            )
        alone = {class_id for truth in truths for class_id in truth.drawn}
        if len(alone) == 1 and len(class_names) > 2 and all(truth.labels is None for truth in truths):
            return (
                f"all {many} hold the class {class_names[alone.pop()]} alone, and no annotation says whether that is so"
            )
    return None


def contradictions(split: str, truths: Sequence[Truth]) -> str | None:
    """A sentence that names the few masks that contradict their images' annotations, None if there are none."""
    wrong = [truth for truth in truths if truth.contradicts]
    if not wrong:
        return None
    names = ", ".join(truth.name for truth in wrong[:20])
    others = f" and {len(wrong) - 20} more" if len(wrong) > 20 else ""
    return f"{split}: {len(wrong)} masks contradict the annotations of their images: {names}{others}"


def _contradiction(truth: Truth) -> str:
    drawn, labels = (", ".join(map(str, classes)) or "none" for classes in (truth.drawn, truth.labels or ()))
    return f"{truth.name} (mask: class {drawn}; annotation: {labels})"
