"""The guard against losses that are not finite, and the search for weights that are not."""

from collections.abc import Mapping

import torch
from torch import Tensor

from fsr.errors import NotFiniteError


class FiniteGuard:
    """Stops every optimizer step from the first loss on that is not finite.

    It uses the flag on the device that fused optimizers have for gradient scalers, so the host need not wait for the
    losses of a step before it queues the next one.
    """

    def __init__(self, optimizer: torch.optim.AdamW, names: tuple[str, ...], device: torch.device) -> None:
        self.names = names
        self.found = torch.zeros((), device=device)  # 1 once a loss was not finite
        self.step = torch.zeros((), dtype=torch.int64, device=device)  # of that loss
        self.losses = torch.zeros(len(names), dtype=torch.float64, device=device)  # of that step
        optimizer.found_inf = self.found  # type: ignore[attr-defined]  # fused optimizers read it; torch declares it nowhere

    def watch(self, step: int, losses: Tensor) -> None:
        """Check the losses [names] of a step, which are equal on all ranks, before its optimizer step."""
        first = ~losses.isfinite().all() & (self.found == 0)
        self.losses.copy_(torch.where(first, losses, self.losses))
        self.step.masked_fill_(first, step)
        self.found.masked_fill_(first, 1)

    def check(self) -> None:
        """Raise NotFiniteError if a loss was not finite. Waits for the device."""
        if self.found:
            losses = zip(self.names, self.losses.tolist(), strict=True)
            wrong = ", ".join(f"{name} {loss}" for name, loss in losses if loss - loss)
            raise NotFiniteError(f"the loss is not finite at step {int(self.step)}: {wrong}")


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that hold NaN or infinity. One pass over each, which allocates nothing."""
    floating = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.numel()}
    if not floating:
        return []
    # NaN goes through both. The host waits for the device once.
    extremes = torch.stack([torch.stack(torch.aminmax(tensor)).double() for tensor in floating.values()])
    finite = extremes.isfinite().all(1).tolist()
    return [name for name, sound in zip(floating, finite, strict=True) if not sound]
