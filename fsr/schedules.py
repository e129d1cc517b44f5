"""What changes along the run: learning rate, teacher momentum and temperature, high threshold. Steps count from 0."""

import math


def lr_factor(step: int, warmup: int, iterations: int, start: float = 0.1) -> float:
    """Factor on the peak learning rate: linear from `start` over `warmup` steps, then half a cosine to 0."""
    if step < warmup:
        return start + (1 - start) * step / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (iterations - warmup)))


def teacher_momentum(step: int, start: float, steps: int) -> float:
    """EMA momentum of the teacher: from `start` to 1 along half a cosine, then 1."""
    return 1 - (1 - start) * 0.5 * (1 + math.cos(math.pi * min(step, steps) / steps))


def falling_threshold(step: int, iterations: int, start: float, end: float) -> float:
    """High threshold of CAMs: `start` for a tenth of the run, then half a cosine to `end` (DuPL, CVPR 2024).

    In the paper τ(t) = τ(0) − ½ (τ(0) − τ(T)) (1 − cos(π t / T)). That t counts from the end of the first tenth is our
    reading: up to there only the classifier learns in the paper. Its τ(0) is recalled, not verified.
    """
    first = iterations // 10
    passed = max(step - first, 0) / (iterations - first)
    return start - 0.5 * (start - end) * (1 - math.cos(math.pi * passed))


def teacher_temperature(step: int, warmup: int, start: float, end: float) -> float:
    """Temperature of the teacher's softmax: linear, both ends included, over the first `warmup` steps, then `end`."""
    if step >= warmup or warmup == 1:
        return end if step >= warmup else start
    return start + (end - start) * step / (warmup - 1)
