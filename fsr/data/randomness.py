"""Random draws that depend only on a key, not on earlier draws or the process."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Seed the CPU generators of torch, NumPy and Python from `key`, and restore their states at the end.

    torchvision draws from torch, timm's RandAugment from the other two. `torch.manual_seed` would reseed CUDA as well.
    """
    before = torch.default_generator.get_state(), np.random.get_state(), random.getstate()
    seed = int(np.random.SeedSequence(key).generate_state(1)[0])
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        torch.default_generator.set_state(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])
