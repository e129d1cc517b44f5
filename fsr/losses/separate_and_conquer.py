"""Separate and conquer: crops that the CAM tags with a class resemble the class's prototype and its other crops."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsr import distributed
from fsr.config import TrainConfig

QUEUE_STEPS = 16
TEMPERATURE = 0.5
MOMENTUM = 0.9


class SeparateAndConquer(nn.Module):
    """The loss of tagged crops, the classes' prototypes and the queue of the last crops.

    With z the student's class token of a crop of class c, P the prototypes and q the crops of the queue, all of length
    1, it is −log(exp(z·P_c/τ) / Σ exp(z·P/τ)) over the classes that have a prototype, plus the mean over the crops q⁺
    of the queue that are of class c of −log(exp(z·q⁺/τ) / Σ exp(z·q/τ)); each is the mean over the crops that have such
    a P or q⁺. Prototypes and queue are the teacher's: a prototype moves by an EMA of .9 towards the mean of a step's
    crops, and the queue holds the crops of the last 16 steps.

    Source: SeCo (CVPR 2024), which tags patches of an image by its CAM ("separate") and contrasts them at two
    granularities, with prototypes and with a pool of earlier ones ("conquer"). Ours, for we are not sure of the
    paper's: the temperature .5, the momentum, the length of the queue, that a crop's tag is the label of its middle
    patch, and that one teacher stands for the paper's two.

    Each call adds what it sees of the teacher; `update` takes in what all calls since the last time saw, on all
    processes, in the order of the micro-batches.
    """

    prototypes: Tensor  # [K, D] of length 1; 0 of a class that no crop has shown yet
    queue: Tensor  # [Q, D] the newest last
    tags: Tensor  # [Q] class of each from 1, 0 for none
    _seen: Tensor  # [micro-batches of a step, crops, D] the newest last
    _seen_tags: Tensor  # [micro-batches of a step, crops]

    def __init__(self, classes: int, width: int, micro_batches: int, crops: int) -> None:
        super().__init__()
        length = QUEUE_STEPS * micro_batches * crops
        self.register_buffer("prototypes", torch.zeros(classes, width))
        self.register_buffer("queue", torch.zeros(length, width))
        self.register_buffer("tags", torch.zeros(length, dtype=torch.int64))
        self.register_buffer("_seen", torch.zeros(micro_batches, crops, width), persistent=False)
        self.register_buffer("_seen_tags", torch.zeros(micro_batches, crops, dtype=torch.int64), persistent=False)

    def forward(self, student: Tensor, teacher: Tensor, tags: Tensor) -> Tensor:
        """Loss of crops' embeddings [crops, D] of student and teacher, with tags [crops] from 1, 0 for none."""
        known = self.prototypes.any(1)
        own = tags[:, None] == torch.arange(1, len(known) + 1, device=tags.device)  # [crops, K]
        same = (tags[:, None] == self.tags) & (tags > 0)[:, None]  # [crops, Q]
        loss = _contrast(student @ self.prototypes.T, own & known, known)
        loss = loss + _contrast(student @ self.queue.T, same, self.tags > 0)
        with torch.no_grad():
            for last, new in ((self._seen, teacher), (self._seen_tags, tags)):
                last.copy_(torch.cat([last[1:], new[None]]))
        return loss

    @torch.no_grad()
    def update(self, calls: int = 1) -> None:
        """Move the prototypes and the queue by what so many calls saw, and as many on every other process."""
        seen, tags = (distributed.gathered(seen[-calls:]).flatten(0, 1) for seen in (self._seen, self._seen_tags))
        shown = tags[:, None] == torch.arange(1, len(self.prototypes) + 1, device=tags.device)  # [crops, K]
        counts = shown.sum(0)[:, None]
        means = (shown[:, :, None] * seen[:, None]).sum(0) / counts.clamp(min=1)
        before = torch.where(self.prototypes.any(1, keepdim=True), self.prototypes, means)
        moved = F.normalize(before.lerp(means, 1 - MOMENTUM), dim=1)
        self.prototypes.copy_(torch.where(counts > 0, moved, self.prototypes))
        for last, new in ((self.queue, seen), (self.tags, tags)):
            last.copy_(torch.cat([last, new])[-len(last) :])


def separate_and_conquer_of(config: TrainConfig) -> SeparateAndConquer | None:
    """A run's, in the sizes that its configuration has; None where `w_seco` is 0."""
    if not config.w_seco:
        return None
    crops = config.batch_size * config.contrast_crops
    return SeparateAndConquer(config.num_classes - 1, config.projector_bottleneck, config.ranks, crops)


def _contrast(likeness: Tensor, positive: Tensor, counted: Tensor) -> Tensor:
    """Mean InfoNCE of cosines [crops, others]: each crop's own others against all that are `counted` [others].

    A crop without any does not count, and no crop at all is 0.
    """
    likeness = likeness / TEMPERATURE  # at most 2: no exponential is large
    all_others = (likeness.exp() * counted).sum(1).clamp(min=1e-6).log()
    numbers = positive.sum(1)
    each = all_others - (likeness * positive).sum(1) / numbers.clamp(min=1)
    has = numbers > 0
    return (each * has).sum() / has.sum().clamp(min=1)
