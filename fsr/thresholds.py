"""The two thresholds between which a CAM's label is ignored, and how they go along the run (`threshold_rule`).

They hold for all labels of training from CAMs: the pseudo labels of the decoder and the labels of the affinity loss.
Masks (`uncertain`) and evaluation (`bkg_threshold`) have their own. Inference takes the configuration's.
"""

import torch
from torch import Tensor, nn

from fsr import distributed
from fsr.config import TrainConfig
from fsr.mixture import Mixture, boundaries, fitted
from fsr.schedules import falling_threshold

STEPS = 100  # whose CAMs are remembered
BINS = 100  # of a CAM's value in [0, 1]
ROUNDS = 5  # of EM a step
KEPT = 1e-3  # share of all mass by which a component keeps what it was
LEAST_DEVIATION = 0.02  # of a component, two bins


def thresholds_of(step: int, config: TrainConfig) -> tuple[float, float]:
    """Low and high threshold of step `step` (from 0) as far as the configuration alone tells them.

    That `high_threshold_start` is by default .15 above `high_threshold` is recalled of DuPL, not verified.
    """
    high, start = config.high_threshold, config.high_threshold_start
    if config.threshold_rule == "cosine":
        high = falling_threshold(step, config.iterations, min(high + 0.15, 1.0) if start is None else start, high)
    return config.low_threshold, high


class ThresholdMixture(nn.Module):
    """Thresholds from a mixture of three normal distributions on the largest CAM values of the last 100 steps (CoSA).

    Each place of the patch grid of each view 1 counts with its largest CAM value of a present class, in [0, 1]. Values
    below .01 do not count: there the ReLU cut, and one component would shrink to that spike. Once a step the mixture
    takes five rounds of EM from where it was. Its components, by rising mean, are background, ambiguous and foreground:
    the low threshold is where the ambiguous component becomes likelier than the background, the high one where the
    foreground becomes likelier than the ambiguous one. The first step has the configuration's.

    Source: CoSA lets the confidence threshold follow a Gaussian mixture on remembered CAMs ("dynamic threshold"), of
    that we are sure. Three components, a threshold at either end of the middle one and a memory of 100 batches are what
    is told of its released code; the paper's text may have two components and one threshold. The patch grid, the
    values that do not count, the rounds and the boundary as the point of equal density are ours.

    A batch is a step: all its micro-batches on all processes. Counts are whole numbers, so the thresholds depend on the
    CAMs alone, however many processes share them.
    """

    thresholds: Tensor  # [2] low and high
    mixture: Tensor  # [3, 3] float64: weights, means, variances
    counts: Tensor  # [STEPS, BINS] of each of the last steps
    _seen: Tensor  # [BINS] in this step so far, on this process

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        means = torch.tensor([low / 2, (low + high) / 2, (high + 1) / 2], dtype=torch.float64)
        start = Mixture(torch.full_like(means, 1 / 3), means, torch.full_like(means, 0.1**2))
        self.register_buffer("thresholds", torch.tensor([low, high]))
        self.register_buffer("mixture", torch.stack(start))
        self.register_buffer("counts", torch.zeros(STEPS, BINS))
        self.register_buffer("_seen", torch.zeros(BINS), persistent=False)

    @torch.no_grad()
    def see(self, value: Tensor) -> None:
        """Count CAM values, of any shape."""
        edges = torch.arange(BINS, device=value.device) / BINS
        above = (value.flatten() >= edges[:, None]).sum(1)  # no bincount: its result's size is the host's to know
        above[:-1] -= above[1:].clone()
        self._seen += above

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take what was seen in step `step` (from 0), on all processes, into the mixture, and set the thresholds."""
        self.counts[step % len(self.counts)] = distributed.total(self._seen)
        self._seen.zero_()
        values = (torch.arange(1, BINS, device=self.counts.device) + 0.5) / BINS
        counts = self.counts[:, 1:].double().sum(0)
        floor = LEAST_DEVIATION**2
        mixture = fitted(Mixture(*self.mixture), values, counts, rounds=ROUNDS, kept=KEPT, least_variance=floor)
        self.mixture.copy_(torch.stack(mixture))
        self.thresholds.copy_(boundaries(mixture))
