"""Mixtures of normal distributions, fitted to a histogram by expectation maximisation (EM) on its own device."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

POINTS = 256  # between two means, at which densities are compared


class Mixture(NamedTuple):
    """Components of a mixture, by rising mean."""

    weights: Tensor  # [..., k], 1 in sum
    means: Tensor  # [..., k]
    variances: Tensor  # [..., k]

    def log_parts(self, values: Tensor) -> Tensor:
        """Logarithm of weight times density of each component at values [..., n]: [..., k, n]."""
        weights, means, variances = (part[..., None] for part in self)
        distance = (values[..., None, :] - means) ** 2 / variances
        return weights.log() - 0.5 * (distance + variances.log() + math.log(2 * math.pi))

    def posterior(self, values: Tensor) -> Tensor:
        """Probability of each component given values [..., n]: [..., k, n]."""
        return self.log_parts(values).softmax(dim=-2)


def fitted(
    start: Mixture,
    values: Tensor,
    counts: Tensor,
    *,
    rounds: int,
    kept: float,
    least_variance: float = 0.0,
    added_variance: float = 0.0,
    posterior: Tensor | None = None,
) -> Mixture:
    """The mixture after so many rounds of EM on counts [..., n] of values [n] or [..., n].

    All in float64: on a GPU products of float32 may be rounded to 10 bits. The number of rounds is fixed, so that the
    host does not wait. The start may be the last fit, and then a few rounds are enough.

    Args:
        start: Where the first round begins.
        values: Of the histogram's bins.
        counts: Of the values; without any the components keep means and variances.
        rounds: Of EM.
        kept: Share of all mass by which a component keeps what it was, so that none vanishes for good; not 0.
        least_variance: Smaller variances are replaced by this one.
        added_variance: Added to every variance.
        posterior: Of the first round [..., k, n]; by default the start's. A start that has none, for its variances are
            0, tells only what components keep.
    """
    values, counts = values.double(), counts.double()[..., None, :]
    kept_mass = kept * counts.sum(-1).clamp(min=1)  # [..., 1]
    places = values[..., None, :]
    mixture = start
    for _ in range(rounds):
        shares = (mixture.posterior(values) if posterior is None else posterior) * counts  # [..., k, n]
        mass = shares.sum(-1) + kept_mass
        means = ((shares * places).sum(-1) + kept_mass * mixture.means) / mass
        spread = (shares * (places - means[..., None]) ** 2).sum(-1)
        variances = (spread + kept_mass * mixture.variances) / mass + added_variance
        mixture = Mixture(mass / mass.sum(-1, keepdim=True), means, variances.clamp(min=least_variance))
        posterior = None
    order = mixture.means.argsort(dim=-1)
    return Mixture(*(part.gather(-1, order) for part in mixture))


def boundaries(mixture: Mixture) -> Tensor:
    """Where the likelier of two neighbouring components changes, between their means: [..., k − 1].

    Between the means the left component's density falls and the right one's rises, so it changes once; where one of
    them is the likelier all the way, the boundary is the other's mean. Exact to a 256th of the distance.
    """
    left, right = mixture.means[..., :-1], mixture.means[..., 1:]
    way = (torch.arange(POINTS, device=left.device, dtype=left.dtype) + 0.5) / POINTS
    places = left[..., None] + (right - left)[..., None] * way  # [..., k - 1, POINTS]
    densities = [
        Mixture(*(part[..., side, None] for part in mixture)).log_parts(places)[..., 0, :]
        for side in (slice(None, -1), slice(1, None))
    ]
    return left + (right - left) * (densities[0] > densities[1]).double().mean(-1)
