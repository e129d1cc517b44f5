"""Class gating: the classifier, which sees the whole image, says which classes the segmentation may choose from."""

import torch.nn.functional as F
from torch import Tensor


def gated(logits: Tensor, class_logits: Tensor, threshold: float) -> Tensor:
    """Segmentation logits [B, C, H, W] with −∞ for each class that the classifier rejects.

    A class is rejected if its image-level logit, of `class_logits` [B, K] without the background, is at most
    `threshold`: at 0 these are the classes that the evaluation's F1 counts as absent. The background always stays. An
    image all of whose classes are rejected keeps its logits, for then the classifier knows none of them.
    """
    rejected = class_logits <= threshold
    rejected = rejected & ~rejected.all(dim=1, keepdim=True)
    return logits.masked_fill(F.pad(rejected, (1, 0))[:, :, None, None], -float("inf"))
