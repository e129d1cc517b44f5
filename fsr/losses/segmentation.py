"""The segmentation loss, balanced between background and foreground."""

import torch.nn.functional as F
from torch import Tensor

from fsr.data.images import IGNORED
from fsr.losses.noise_filter import noisy_pixels
from fsr.resize import resize


def segmentation_loss(logits: Tensor, label: Tensor, *, filter_noise: bool = False) -> Tensor:
    """Cross-entropy of logits [B, C, h, w] against labels [B, H, W] with 255 ignored (METHOD "seg").

    Half the mean over the batch's background pixels plus half the mean over its foreground pixels; a mean over no
    pixels is 0 (in the released code it is NaN and poisons every rank). `filter_noise` ignores `noisy_pixels` as well.
    """
    logits = resize(logits, (label.shape[-2], label.shape[-1]))
    label = label.long()
    loss = F.cross_entropy(logits, label, ignore_index=IGNORED, reduction="none")
    if filter_noise:
        label = label.masked_fill(noisy_pixels(loss, label), IGNORED)
    background = label == 0
    foreground = (label != 0) & (label != IGNORED)
    means = [(loss * pixels).sum() / pixels.sum().clamp(min=1) for pixels in (background, foreground)]
    return 0.5 * (means[0] + means[1])
