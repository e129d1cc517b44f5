"""The released training order in the place of ours. All else of a run stays: data, draws, optimizer, teacher, scores.

The order is that of tests/reference_step.py, a frozen reference with the released code's waste, and without drop path.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor

from fsr.config import TrainConfig
from fsr.losses.self_reinforcement import SelfReinforcement
from fsr.models.network import Network
from fsr.step import Batch

sys.path.append(str(Path(__file__).resolve().parent.parent.parent / "tests"))
from reference_step import reference_losses


@contextmanager
def released_order() -> Iterator[None]:
    """Let `fsr.train` take the released steps inside, of a configuration with what these do (arms.AS_RELEASED)."""
    with patch("fsr.train.step_losses", released_losses):
        yield


def released_losses(
    student: Network,
    teacher: Network,
    reinforcement: SelfReinforcement,
    batch: Batch,
    noise: Tensor,
    step: int,
    config: TrainConfig,
    *_: object,
) -> dict[str, Tensor]:
    """`fsr.step.step_losses` in the released order; the teacher's temperature follows from the step."""
    before = {"class": reinforcement.class_centre.flatten(), "patch": reinforcement.patch_centre.flatten()}
    centres = dict(before)
    losses = reference_losses(student, teacher, centres, batch[:3], noise, step, config)
    # The reference moves the centres at once; here, as in ours, they move after the step by the means it saw.
    kept = reinforcement.centre_momentum
    means = [(centres[name] - kept * before[name]) / (1 - kept) for name in before]
    reinforcement._seen += torch.stack(means).detach()
    return losses
