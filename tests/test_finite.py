"""The guard against losses that are not finite."""

import pytest
import torch

from fsr.errors import NotFiniteError
from fsr.finite import FiniteGuard


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_no_weight_takes_in_a_loss_that_is_not_finite_or_anything_after_it(bad):
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight], fused=True)
    guard = FiniteGuard(optimizer, ("loss", "seg"), torch.device("cpu"))

    def learn(step, loss, gradient):
        weight.grad = torch.full((3,), gradient)
        guard.watch(step, torch.tensor([loss, 1.0], dtype=torch.float64))
        optimizer.step()

    learn(7, 2.0, 1.0)
    guard.check()
    before = weight.detach().clone()
    assert not torch.equal(before, torch.ones(3))
    state = {name: value.clone() for name, value in optimizer.state[weight].items()}
    learn(8, bad, bad)
    learn(9, 2.0, 1.0)
    learn(10, -bad, 1.0)
    assert torch.equal(weight, before)
    assert all(torch.equal(optimizer.state[weight][name], value) for name, value in state.items())
    with pytest.raises(NotFiniteError, match=f"not finite at step 8: loss {bad}$"):
        guard.check()
