"""The bilateral filter, the lattice under it and the energy loss on top."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fsr.losses.energy import energy_loss
from fsr.ops import Lattice, bilateral_filter


def picture(batch: int = 1, height: int = 24, width: int = 32, seed: int = 0) -> torch.Tensor:
    """A smooth colour image [B, 3, H, W] in 0..255."""
    coarse = torch.rand(batch, 3, 3, 4, generator=torch.Generator().manual_seed(seed)) * 255
    return F.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 255)


def random_values(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def exact_filter(image, values, sigma_rgb, sigma_xy):
    """The Gaussian sum over all pairs of pixels."""
    y, x = torch.meshgrid(*(torch.arange(side) for side in image.shape[2:]), indexing="ij")
    place = torch.stack([x, y]).expand(len(image), -1, -1, -1) / sigma_xy
    features = torch.cat([place, image / sigma_rgb], dim=1).flatten(2).transpose(1, 2).double()
    kernel = torch.exp(-0.5 * torch.cdist(features, features) ** 2)
    return (values.flatten(2).double() @ kernel).view(values.shape).float()


@pytest.mark.parametrize(("sigma_rgb", "sigma_xy"), [(60.0, 4.0), (30.0, 8.0)])
def test_weighted_means_are_near_those_of_the_exact_gaussian(sigma_rgb, sigma_xy):
    image, values = picture(), random_values(1, 4, 24, 32)
    ones = torch.ones(1, 1, 24, 32)
    ours, exact = (
        kind(image, values, sigma_rgb, sigma_xy) / kind(image, ones, sigma_rgb, sigma_xy)
        for kind in (bilateral_filter, exact_filter)
    )
    # Measured: at most 0.062 apart, 0.004 on average; the exact means spread over 0.31.
    assert (ours - exact).abs().max() < 0.08
    sums = [kind(image, values, sigma_rgb, sigma_xy).flatten() for kind in (bilateral_filter, exact_filter)]
    assert torch.corrcoef(torch.stack(sums))[0, 1] > 0.97


def test_two_dimensional_lattice_is_an_almost_constant_multiple_of_the_gaussian():
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(32.0), indexing="ij")
    points = torch.stack([x, y]).flatten(1) / 3
    values = random_values(1, 2, 24 * 32)
    exact = values.double() @ torch.exp(-0.5 * torch.cdist(points.t().double(), points.t().double()) ** 2)
    ratio = Lattice(points[None]).filter(values) / exact
    assert ratio.min() > 0.7
    assert ratio.max() < 0.95


def test_a_point_far_from_all_others_gets_its_own_value_back_by_the_lattice_s_arithmetic():
    """d = 1, a point on a vertex: it touches that vertex with weight 1 and one neighbour with weight 0.

    Two blurs, one along each axis: the neighbour takes ½ and returns ½ of it, so 1¼; slicing divides by 1 + 2^-1.
    """
    far = torch.tensor([[[0.0, 1000.0]]])
    filtered = Lattice(far).filter(torch.tensor([[[3.0, 0.0]]]))
    assert filtered[0, 0].tolist() == pytest.approx([3 * 1.25 / 1.5, 0])


def test_equal_points_get_equal_results_whatever_their_number():
    result = Lattice(torch.full((1, 5, 7), 0.3)).filter(torch.ones(1, 1, 7))
    alone = Lattice(torch.full((1, 5, 1), 0.3)).filter(torch.ones(1, 1, 1))
    torch.testing.assert_close(result, 7 * alone.expand(1, 1, 7))


def test_constant_image_spreads_by_place_alone():
    values = random_values(1, 1, 16, 16)
    black, grey = (bilateral_filter(torch.full((1, 3, 16, 16), level), values, 15.0, 3.0) for level in (0.0, 90.0))
    torch.testing.assert_close(black / black.mean(), grey / grey.mean(), rtol=0.3, atol=0)


def test_an_edge_of_colour_stops_the_filter():
    image = torch.zeros(1, 3, 16, 16)
    image[..., 8:] = 255
    values = torch.zeros(1, 1, 16, 16)
    values[..., :8] = 1
    filtered = bilateral_filter(image, values, 15.0, 50.0)
    assert filtered[..., :8].min() > 1
    assert filtered[..., 8:].eq(0).all()


def test_the_filter_is_symmetric_up_to_the_order_of_its_blur_axes():
    image = picture()
    x, y = random_values(1, 4, 24, 32, seed=1) - 0.5, random_values(1, 4, 24, 32, seed=2) - 0.5
    ax, ay = (bilateral_filter(image, values, 30.0, 8.0) for values in (x, y))
    assert abs((ax * y).sum() - (x * ay).sum()) < 0.02 * ax.norm() * y.norm()


def test_the_gradient_is_the_same_filter_and_the_image_gets_none():
    image, values, upstream = (
        picture().requires_grad_(),
        random_values(1, 2, 24, 32),
        random_values(1, 2, 24, 32, seed=3),
    )
    values.requires_grad_()
    bilateral_filter(image, values, 15.0, 10.0).backward(upstream)
    assert image.grad is None
    assert torch.equal(values.grad, bilateral_filter(image, upstream, 15.0, 10.0))


def test_every_run_gives_the_same_bits():
    image, values = picture(2), random_values(2, 5, 24, 32)
    first = bilateral_filter(image, values, 15.0, 10.0)
    assert all(torch.equal(first, bilateral_filter(image, values, 15.0, 10.0)) for _ in range(5))


def test_a_batch_equals_its_images_one_by_one():
    image, values = picture(3), random_values(3, 2, 24, 32)
    one_by_one = [bilateral_filter(image[i : i + 1], values[i : i + 1], 15.0, 10.0) for i in range(3)]
    torch.testing.assert_close(bilateral_filter(image, values, 15.0, 10.0), torch.cat(one_by_one))


@pytest.mark.parametrize("channels", [2, 21])
def test_many_channels_equal_each_channel(channels):
    image, values = picture(), random_values(1, channels, 24, 32)
    each = [bilateral_filter(image, values[:, c : c + 1], 15.0, 10.0) for c in range(channels)]
    torch.testing.assert_close(bilateral_filter(image, values, 15.0, 10.0), torch.cat(each, dim=1))


def test_memory_layout_does_not_matter():
    image, values = picture(), random_values(1, 4, 24, 32)
    strided = bilateral_filter(
        image.to(memory_format=torch.channels_last), values.transpose(2, 3).contiguous().transpose(2, 3), 15.0, 10.0
    )
    assert torch.equal(strided, bilateral_filter(image, values, 15.0, 10.0))


@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    sigma_rgb=st.floats(0.5, 1e4),
    sigma_xy=st.floats(0.1, 1e4),
    seed=st.integers(0, 999),
)
def test_the_filter_is_linear_and_keeps_positive_values_positive(size, sigma_rgb, sigma_xy, seed):
    image, values = random_values(1, 3, *size, seed=seed) * 255, random_values(1, 2, *size, seed=seed + 1)
    filtered = bilateral_filter(image, values, sigma_rgb, sigma_xy)
    assert filtered.shape == values.shape
    assert (filtered > 0).all()
    combined = bilateral_filter(image, 2 * values[:, :1] + values[:, 1:], sigma_rgb, sigma_xy)
    torch.testing.assert_close(combined, 2 * filtered[:, :1] + filtered[:, 1:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 1e-3), (torch.bfloat16, 8e-3), (torch.float64, 1e-6)])
def test_other_types_are_filtered_in_float32_and_given_back(dtype, tolerance):
    image, values = picture(), random_values(1, 2, 24, 32).to(dtype).requires_grad_()
    filtered = bilateral_filter(image, values, 15.0, 10.0)
    assert filtered.dtype == dtype
    torch.testing.assert_close(
        filtered.float(), bilateral_filter(image, values.float(), 15.0, 10.0), rtol=tolerance, atol=0
    )
    assert torch.autograd.grad(filtered.sum(), values)[0].dtype == dtype


@pytest.mark.parametrize("shape", [(0, 2, 8, 8), (2, 0, 8, 8), (2, 2, 0, 8)])
def test_nothing_to_filter_gives_nothing(shape):
    values = torch.zeros(shape, requires_grad=True)
    filtered = bilateral_filter(torch.zeros(shape[0], 3, *shape[2:]), values, 15.0, 10.0)
    filtered.sum().backward()
    assert filtered.shape == values.grad.shape == shape


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": torch.zeros(3, 8, 8)}, r"Expected an image \[B, 3, H, W\], got \[3, 8, 8\]"),
        ({"image": torch.zeros(2, 1, 8, 8)}, r"Expected an image \[B, 3, H, W\], got \[2, 1, 8, 8\]"),
        ({"image": torch.full((2, 3, 8, 8), math.nan)}, "Expected a finite image"),
        ({"image": torch.full((2, 3, 8, 8), math.inf)}, "Expected a finite image"),
        ({"values": torch.zeros(2, 8, 8)}, r"Expected values \[B, C, H, W\], got \[2, 8, 8\]"),
        (
            {"values": torch.zeros(2, 4, 8, 9)},
            r"the same batch, height and width, got \[2, 3, 8, 8\] and \[2, 4, 8, 9\]",
        ),
        ({"values": torch.zeros(1, 4, 8, 8)}, "the same batch, height and width"),
        ({"values": torch.zeros(2, 4, 8, 8, dtype=torch.int64)}, "Expected floating-point values, got torch.int64"),
        ({"sigma_rgb": 0.0}, "sigma_rgb must be a finite number above 0, got 0.0"),
        ({"sigma_xy": -1.0}, "sigma_xy must be a finite number above 0, got -1.0"),
        ({"sigma_xy": math.nan}, "sigma_xy must be a finite number above 0, got nan"),
        ({"image": picture(2, 8, 8), "sigma_rgb": 1e-6}, "standard deviations are too small"),
    ],
)
def test_bad_inputs_are_named(change, message):
    inputs = {"image": torch.zeros(2, 3, 8, 8), "values": torch.zeros(2, 4, 8, 8), "sigma_rgb": 15.0, "sigma_xy": 10.0}
    with pytest.raises(ValueError, match=message):
        bilateral_filter(**inputs | change)


def test_values_that_are_not_finite_stay_visible():
    values = torch.zeros(1, 1, 8, 8)
    values[0, 0, 0, 0] = math.nan
    assert bilateral_filter(torch.zeros(1, 3, 8, 8), values, 15.0, 10.0).isnan().any()


# --- energy loss ---

MEAN = torch.tensor([123.675, 116.28, 103.53])[:, None, None]
STD = torch.tensor([58.395, 57.12, 57.375])[:, None, None]


@pytest.fixture
def energy_inputs():
    label = torch.randint(0, 5, (2, 32, 32), generator=torch.Generator().manual_seed(4)).to(torch.uint8)
    label[:, 10:20] = 255
    logits = 4 * random_values(2, 5, 4, 4) - 2
    return logits.requires_grad_(), (picture(2, 32, 32) - MEAN) / STD, label


def half_size_probabilities(logits, size):
    whole = F.interpolate(logits, size=size, mode="bilinear", align_corners=False).softmax(1)
    return F.interpolate(whole, scale_factor=0.5, mode="bilinear", align_corners=False)


def test_energy_gradient_is_the_stated_formula(energy_inputs):
    logits, image, label = energy_inputs
    probabilities = half_size_probabilities(logits, (32, 32))
    inside = probabilities.detach()
    filtered = bilateral_filter((image * STD + MEAN)[..., ::2, ::2], inside, 15.0, 50.0)
    gate = (1 - inside.amax(1, keepdim=True)).clamp(min=0)
    gate = torch.where(label[:, None, ::2, ::2] == 255, 1.0, gate)

    loss = energy_loss(logits, image, label)
    expected = -1e-7 * (inside * gate * filtered).sum() / 2
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    (expected,) = torch.autograd.grad(probabilities, logits, grad_outputs=-2e-7 * gate * filtered / 2)
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())


def test_energy_weight_scales_it_and_labels_may_be_long(energy_inputs):
    logits, image, label = energy_inputs
    loss = energy_loss(logits, image, label)
    assert energy_loss(logits, image, label.long(), weight=2e-7).item() == pytest.approx(2 * loss.item())


def test_energy_is_lower_where_like_colours_share_a_class():
    image = torch.zeros(1, 3, 32, 32)
    image[..., 16:] = 255
    image = (image - MEAN) / STD
    label = torch.full((1, 32, 32), 255)
    along, across = torch.zeros(1, 2, 32, 32), torch.zeros(1, 2, 32, 32)
    along[:, 1, :, 16:] = along[:, 0, :, :16] = 3
    across[:, 1, 16:] = across[:, 0, :16] = 3
    assert energy_loss(along, image, label) < energy_loss(across, image, label)
