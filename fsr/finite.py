"""The guard against losses that are not finite."""

import torch
from torch import Tensor

from fsr.errors import NotFiniteError


class FiniteGuard:
    """From the first loss that is not finite on, keeps every optimizer step from doing anything.

    It does so on the device, through the flag that the fused optimizers have for gradient scalers, so that the host
    need not wait for each step's losses before it queues the next.
    """

    def __init__(self, optimizer: torch.optim.AdamW, names: tuple[str, ...], device: torch.device) -> None:
        self.names = names
        self.found = torch.zeros((), device=device)  # 1 once a loss was not finite
        self.step = torch.zeros((), dtype=torch.int64, device=device)  # of that loss
        self.losses = torch.zeros(len(names), dtype=torch.float64, device=device)  # of that step
        optimizer.found_inf = self.found

    def watch(self, step: int, losses: Tensor) -> None:
        """Look at the losses [names] of a step, the same on all ranks, before its optimizer step."""
        first = ~losses.isfinite().all() & (self.found == 0)
        self.losses.copy_(torch.where(first, losses, self.losses))
        self.step.masked_fill_(first, step)
        self.found.masked_fill_(first, 1)

    def check(self) -> None:
        """Raise NotFiniteError if a loss was not finite; waits for the device."""
        if self.found:
            losses = zip(self.names, self.losses.tolist(), strict=True)
            wrong = ", ".join(f"{name} {loss}" for name, loss in losses if loss - loss)
            raise NotFiniteError(f"the loss is not finite at step {int(self.step)}: {wrong}")
