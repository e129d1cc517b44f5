"""The noise filter: which foreground pixels have a pseudo label that is probably wrong, by their loss (DuPL)."""

import torch
from torch import Tensor

from fsr.arithmetic import forward_only
from fsr.data.images import IGNORED
from fsr.mixture import Mixture, fitted

BINS = 256
ROUNDS = 20  # of EM
KEPT = 1e-12  # share of all losses by which a Gaussian that has none keeps the mean of all
ADDED_VARIANCE = 1e-3  # losses that are all alike have none
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
    middles = (edges - width / 2).double()
    overall = (middles * counts).sum(1, keepdim=True) / counts.sum(1, keepdim=True).clamp(min=1)
    above = middles > overall
    halves = torch.stack([~above, above], dim=1).double()
    mean = overall.expand(-1, 2)
    alike = Mixture(torch.full_like(mean, 0.5), mean, torch.zeros_like(mean))
    mixture = fitted(alike, middles, counts, rounds=ROUNDS, kept=KEPT, added_variance=ADDED_VARIANCE, posterior=halves)
    sure = mixture.posterior(middles)[:, 1] > SURE
    apart = mixture.means[:, 1] - mixture.means[:, 0] > GAP
    bins = torch.searchsorted(edges, values).clamp(max=BINS - 1)
    return ((sure & apart[:, None]).gather(1, bins) & foreground).view_as(label)
