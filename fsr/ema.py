"""The EMA teacher: an exponential moving average of the student's weights."""

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Move all of the teacher's parameters towards the student's: momentum · teacher + (1 − momentum) · student."""
    average = get_ema_multi_avg_fn(momentum)  # type: ignore[no-untyped-call]  # torch gives it no types
    average(list(teacher.parameters()), [parameter.detach() for parameter in student.parameters()], None)
