"""The noise filter: which foreground pixels have a pseudo label that is probably wrong, by their loss (DuPL)."""

import torch
from torch import Tensor

from fsr.arithmetic import forward_only
from fsr.data.images import IGNORED

BINS = 256
ITERATIONS = 20
LEAST_VARIANCE = 1e-3  # added to both variances: losses that are all alike have none
GAP = 1.0
SURE = 0.95


@forward_only()
def noisy_pixels(loss: Tensor, label: Tensor) -> Tensor:
    """Pixels [B, H, W] (bool) of segmentation losses [B, H, W], none negative, under pseudo labels [B, H, W].

    Networks learn right labels before wrong ones. So the losses l of an image's foreground pixels are taken for a
    mixture of two Gaussians, w₁ N(l; μ₁, σ₁²) + w₂ N(l; μ₂, σ₂²) with μ₁ ≤ μ₂. Where μ₂ − μ₁ > 1, the pixels with
    P(2 | l) > .95 are noisy; else none is.

    Source: DuPL (CVPR 2024), "adaptive noise filtering". Ours is how the mixture is fitted: to a histogram of 256 bins
    from 0 to the image's largest loss, by 20 rounds of EM that start from the losses up to their mean and those above
    it. The host does not wait for the device.
    """
    values = loss.flatten(1)
    foreground = ((label != 0) & (label != IGNORED)).flatten(1)
    width = ((values * foreground).amax(1, keepdim=True) / BINS).clamp(min=1e-12)
    edges = torch.arange(1, BINS + 1, device=values.device) * width  # the upper ones
    # Counted by sorting: a GPU adds to bins in another order each time, or sorts in any case.
    up_to_edge = torch.searchsorted(values.masked_fill(~foreground, torch.inf).sort(1).values, edges, right=True)
    counts = up_to_edge.diff(dim=1, prepend=torch.zeros_like(up_to_edge[:, :1]))
    mean, posterior = two_gaussians((edges - width / 2).double(), counts.double())
    worse = mean.argmax(1)[:, None, None].expand(-1, 1, BINS)
    sure = posterior.gather(1, worse)[:, 0] > SURE
    apart = (mean[:, 1] - mean[:, 0]).abs() > GAP
    bins = torch.searchsorted(edges, values).clamp(max=BINS - 1)
    return ((sure & apart[:, None]).gather(1, bins) & foreground).view_as(label)


def two_gaussians(values: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Means [B, 2] of a mixture fitted to values [B, n] with counts [B, n], and its posteriors [B, 2, n]."""
    share = counts / counts.sum(1, keepdim=True).clamp(min=1)
    overall = (share * values).sum(1, keepdim=True)
    above = values > overall
    posterior = torch.stack([~above, above], dim=1).to(values.dtype)
    values, share, overall = values[:, None], share[:, None], overall[:, None]
    least = 1e-12  # of a component's weight: one that has no values has the mean of all
    for _ in range(ITERATIONS):
        own = share * posterior
        weight = own.sum(2, keepdim=True) + least
        mean = ((own * values).sum(2, keepdim=True) + least * overall) / weight
        deviation = (values - mean).square()
        variance = (own * deviation).sum(2, keepdim=True) / weight + LEAST_VARIANCE
        posterior = (weight.log() - (variance.log() + deviation / variance) / 2).softmax(1)
    return mean[:, :, 0], posterior
