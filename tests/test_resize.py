"""Resizing equals torch's, forwards and backwards, and works where torch's own gradient is refused."""

import pytest
import torch
import torch.nn.functional as F

from fsr.resize import resize, resize_bicubic

SIZES = [((7, 5), (28, 40)), ((28, 28), (14, 9)), ((1, 1), (3, 4)), ((6, 6), (6, 6))]


@pytest.mark.parametrize(("before", "after"), SIZES)
@pytest.mark.parametrize("align_corners", [False, True])
def test_bilinear_is_torch_s(before, after, align_corners):
    maps = torch.randn(2, 3, *before, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 3, *after, dtype=torch.float64)
    ours = resize(maps, after, align_corners=align_corners)
    theirs = F.interpolate(maps, size=after, mode="bilinear", align_corners=align_corners)
    assert torch.equal(ours, theirs)
    gradients = [torch.autograd.grad((each * weights).sum(), maps)[0] for each in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)  # the matrices are float32


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_bicubic_is_torch_s_also_under_autocast(before, after):
    maps = torch.randn(1, 4, *before, requires_grad=True)
    weights = torch.randn(1, 4, *after)
    with torch.autocast("cpu", torch.bfloat16):
        ours = resize_bicubic(maps, after)
    theirs = F.interpolate(maps, size=after, mode="bicubic", align_corners=False)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    gradients = [torch.autograd.grad((each * weights).sum(), maps)[0] for each in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)
