"""What changes along the run: learning rate, teacher momentum, teacher temperature. Steps count from 0."""

import math


def lr_factor(step: int, warmup: int, iterations: int, start: float = 0.1) -> float:
    """Factor on the peak learning rate: linear from `start` over `warmup` steps, then half a cosine to 0."""
    if step < warmup:
        return start + (1 - start) * step / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (iterations - warmup)))


def teacher_momentum(step: int, start: float, steps: int) -> float:
    """EMA momentum of the teacher: from `start` to 1 along half a cosine, then 1."""
    return 1 - (1 - start) * 0.5 * (1 + math.cos(math.pi * min(step, steps) / steps))


def teacher_temperature(step: int, warmup: int, start: float, end: float) -> float:
    """Temperature of the teacher's softmax: linear, both ends included, over the first `warmup` steps, then `end`."""
    if step >= warmup or warmup == 1:
        return end if step >= warmup else start
    return start + (end - start) * step / (warmup - 1)
