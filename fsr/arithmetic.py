"""How exactly a GPU computes: the precision of products and convolutions, and whether every run gives the same bits."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias

import torch

Precision: TypeAlias = Literal["fp32", "tf32", "bf16"]


def use_arithmetic(precision: Precision, *, deterministic: bool) -> None:
    """Set how GPUs compute, for the whole process. CPUs compute in float32, always the same bits, whatever is set.

    `tf32` rounds the factors of float32 products and convolutions to 10 bits; elsewhere they are exact. `deterministic`
    refuses every operation that could give other bits the next time.
    """
    # The choice must be there before the first product, and the other workspaces would be no faster.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    rounded = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = rounded
    torch.backends.cudnn.allow_tf32 = rounded
    torch.use_deterministic_algorithms(deterministic)
    # Only what reads memory that it has not written is the better for it; filling takes a fifth of a step's launches.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # torch declares none


def computed_in(precision: Precision, device: torch.device) -> Precision:
    """What a device makes of a precision."""
    return "fp32" if device.type == "cpu" and precision == "tf32" else precision


@contextmanager
def forward_only() -> Iterator[None]:
    """Compute without gradient, and so without asking for the same bits: forward passes have them anyway.

    Who asks is refused cuDNN's attention for what its backward pass does; it is a third faster on an H100.
    """
    asked = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.use_deterministic_algorithms(asked)
