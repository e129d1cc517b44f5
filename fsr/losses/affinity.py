"""The affinity loss: features of one class alike, of two classes not."""

import torch.nn.functional as F
from torch import Tensor

from fsr.data.images import IGNORED


def affinity_loss(features: Tensor, label: Tensor) -> Tensor:
    """Loss of features [B, D, h, w] given a label map [B, h, w] with 255 ignored (METHOD "aff"; ToCo).

    On the |cosine| of all ordered pairs of two different pixels of an image: 1/2 (1 − mean of the pairs with equal
    label) + 1/2 mean of the others, where each mean divides by its count + 1.
    """
    tokens = F.normalize(features.flatten(2), dim=1)
    likeness = (tokens.transpose(1, 2) @ tokens).abs()  # [B, hw, hw]
    label = label.flatten(1)
    known = label != IGNORED
    pairs = known[:, :, None] & known[:, None, :]
    pairs.diagonal(dim1=1, dim2=2).fill_(False)
    equal = label[:, :, None] == label[:, None, :]
    positive, negative = pairs & equal, pairs & ~equal
    alike = (likeness * positive).sum() / (positive.sum() + 1)
    unlike = (likeness * negative).sum() / (negative.sum() + 1)
    return 0.5 * (1 - alike) + 0.5 * unlike
