"""The native operators against their plain-torch references, and what an operator of torch owes its users."""

import re
import shutil
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_ops import picture, random_values

from fsr.ops import bilateral_filter, mean_field, reference

BILATERAL = torch.ops.fsr.bilateral_filter.default
MEAN_FIELD = torch.ops.fsr.mean_field.default
POTTS = {
    "spatial_weight": 1.0,
    "spatial_std": 1.0,
    "bilateral_weight": 4.0,
    "bilateral_xy_std": 121.0,
    "bilateral_rgb_std": 5.0,
}
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]

pytestmark = pytest.mark.skipif(
    not torch._C._dispatch_has_kernel_for_dispatch_key(BILATERAL.name(), "CPU"), reason="the native op is not built"
)


def reference_mean_field(image, logits, iterations, potts):
    spatial = potts["spatial_weight"], potts["spatial_std"]
    bilateral = potts["bilateral_weight"], potts["bilateral_xy_std"], potts["bilateral_rgb_std"]
    return reference.mean_field(image, logits, iterations, spatial, bilateral)


def within(ours, theirs, tolerance):
    assert ours.shape == theirs.shape
    assert ((ours - theirs).abs().max() <= tolerance * theirs.abs().max()).item()


SIZES = st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 70), st.integers(1, 70))


@settings(max_examples=60, deadline=None)
@given(
    size=SIZES,
    sigma_rgb=st.floats(0.05, 300),
    sigma_xy=st.floats(0.05, 300),
    levels=st.sampled_from([1, 2, 256, 100_000]),
    seed=st.integers(0, 999),
)
def test_the_filter_is_the_reference(size, sigma_rgb, sigma_xy, levels, seed):
    batch, channels, height, width = size
    image = (random_values(batch, 3, height, width, seed=seed) * levels).floor() * (255 / levels)
    values = random_values(batch, channels, height, width, seed=seed + 1) - 0.3
    try:
        theirs = reference.bilateral_filter(image, values, sigma_rgb, sigma_xy)
    except ValueError as error:  # too many cells for 64 bits
        with pytest.raises(ValueError, match=re.escape(str(error))):
            bilateral_filter(image, values, sigma_rgb, sigma_xy)
    else:
        within(bilateral_filter(image, values, sigma_rgb, sigma_xy), theirs, 2e-6)


@settings(max_examples=30, deadline=None)
@given(
    size=SIZES,
    spatial_std=st.floats(0.3, 20),
    bilateral_xy_std=st.floats(0.5, 200),
    bilateral_rgb_std=st.floats(1, 100),
    iterations=st.integers(0, 3),
    seed=st.integers(0, 999),
)
def test_the_mean_field_is_the_reference(size, spatial_std, bilateral_xy_std, bilateral_rgb_std, iterations, seed):
    """Blocks, their surroundings and all: the reference has one lattice for the whole image."""
    batch, channels, height, width = size
    image = random_values(batch, 3, height, width, seed=seed) * 255
    logits = 6 * random_values(batch, channels, height, width, seed=seed + 1)
    potts = POTTS | {
        "spatial_std": spatial_std,
        "bilateral_xy_std": bilateral_xy_std,
        "bilateral_rgb_std": bilateral_rgb_std,
    }
    ours = mean_field(image, logits, iterations, **potts)
    torch.testing.assert_close(ours, reference_mean_field(image, logits, iterations, potts), rtol=0, atol=1e-3)


@pytest.mark.parametrize("spatial_std", [0.5, 1, 3, 7])
def test_the_mean_field_of_a_picture_is_the_reference(spatial_std):
    image, logits = picture(1, 150, 190), 4 * picture(1, 150, 190, seed=3) / 255
    potts = POTTS | {"spatial_std": spatial_std, "bilateral_weight": 2.0}
    ours = mean_field(image, logits, 4, **potts)
    torch.testing.assert_close(ours, reference_mean_field(image, logits, 4, potts), rtol=0, atol=1e-4)


@pytest.mark.parametrize("channels", [3, 21])
def test_the_number_of_threads_changes_no_bit(channels):
    image, values = picture(2, 100, 130), random_values(2, channels, 100, 130)
    results = []
    for threads in (1, 2, 3, 8):
        torch.set_num_threads(threads)
        try:
            results.append((bilateral_filter(image, values, 15.0, 10.0), mean_field(image, values, 3, **POTTS)))
        finally:
            torch.set_num_threads(1)
    assert all(torch.equal(result, first) for again in results for result, first in zip(again, results[0], strict=True))


@pytest.mark.parametrize("device", DEVICES)
def test_the_operators_keep_torch_s_contract(device):
    image, values = picture(2, 9, 11).to(device), random_values(2, 3, 9, 11).to(device)
    torch.library.opcheck(BILATERAL, (image, values.clone().requires_grad_(), 15.0, 10.0))
    torch.library.opcheck(BILATERAL, (image.transpose(2, 3), values.transpose(2, 3), 15.0, 10.0))
    torch.library.opcheck(MEAN_FIELD, (image, values, 2, *POTTS.values()))


def test_gradcheck_where_the_blur_s_axes_commute():
    """The filter is linear, so a step of 1 is exact; far from each other, pixels see only the middle of the kernel."""
    image, values = torch.zeros(1, 3, 2, 3), random_values(1, 2, 2, 3).double().requires_grad_()
    image[0, 0] = 1000 * torch.arange(6.0).view(2, 3)
    assert torch.autograd.gradcheck(
        lambda v: bilateral_filter(image, v, 15.0, 10.0), values, eps=1.0, atol=1e-5, check_undefined_grad=False
    )


def test_gradcheck_up_to_the_order_of_the_axes():
    values = random_values(1, 2, 4, 5).double().requires_grad_()
    image = picture(1, 4, 5)
    largest = bilateral_filter(image, torch.ones(1, 1, 4, 5), 40.0, 3.0).max().item()
    assert torch.autograd.gradcheck(
        lambda v: bilateral_filter(image, v, 40.0, 3.0), values, eps=1.0, rtol=0, atol=0.05 * largest
    )


def test_it_compiles_without_a_break():
    image, values = picture(1, 12, 16), random_values(1, 2, 12, 16).requires_grad_()

    def loss(values):
        return (bilateral_filter(image, values.softmax(1), 15.0, 10.0) * values).sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    assert compiled(values) == loss(values)
    (ours,), (theirs,) = (torch.autograd.grad(kind(values), values) for kind in (compiled, loss))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("image", "values", "message"),
    [
        (torch.zeros(1, 3, 8, 8), torch.zeros(1, 2, 8, 9), r"got \[1, 3, 8, 8\] and \[1, 2, 8, 9\]"),
        (torch.zeros(3, 8, 8), torch.zeros(1, 2, 8, 8), r"Expected an image \[B, 3, H, W\]"),
        (torch.zeros(1, 3, 8, 8), torch.zeros(1, 2, 8, 8).half(), "Expected float32, got Float and Half"),
    ],
)
def test_the_bare_operators_guard_their_memory(image, values, message):
    with pytest.raises(ValueError, match=message):
        BILATERAL(image, values, 15.0, 10.0)
    with pytest.raises(ValueError, match=message):
        MEAN_FIELD(image, values, 1, *POTTS.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": torch.full((1, 2, 8, 8), -torch.inf)}, "Expected finite logits"),
        ({"logits": torch.full((1, 2, 8, 8), torch.nan)}, "Expected finite logits"),
        ({"image": torch.full((1, 3, 8, 8), torch.nan)}, "Expected a finite image"),
        ({"image": picture(1, 8, 8), "bilateral_rgb_std": 1e-30}, "standard deviations are too small"),
        ({"spatial_std": 1e-9}, "standard deviations are too small"),
        ({"spatial_std": 0.0}, "spatial_std must be a finite number above 0, got 0.0"),
        ({"bilateral_weight": torch.inf}, "bilateral_weight must be a finite number, got inf"),
        ({"iterations": -1}, "iterations must be 0 or more, got -1"),
        ({"logits": torch.zeros(1, 2, 8, 9)}, "Expected image and logits of the same batch, height and width"),
    ],
)
def test_bad_inputs_of_the_mean_field_are_named(change, message):
    inputs = {"image": torch.zeros(1, 3, 8, 8), "logits": torch.zeros(1, 2, 8, 8), "iterations": 1, **POTTS}
    with pytest.raises(ValueError, match=message):
        mean_field(**inputs | change)


@pytest.mark.parametrize("shape", [(0, 2, 8, 8), (2, 0, 8, 8), (2, 2, 0, 8)])
def test_nothing_to_infer_gives_nothing(shape):
    assert mean_field(torch.zeros(shape[0], 3, *shape[2:]), torch.zeros(shape), 2, **POTTS).shape == shape


def test_without_the_extension_the_reference_runs_with_one_warning():
    code = """if True:
        import sys, warnings
        sys.modules["fsr._C"] = None
        import torch
        from fsr.ops import bilateral_filter, mean_field
        image, values = torch.zeros(1, 3, 4, 4), torch.ones(1, 1, 4, 4)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            first = bilateral_filter(image, values, 15.0, 2.0)
            bilateral_filter(image, values, 15.0, 2.0)
            mean_field(image, values, 1, spatial_weight=1, spatial_std=1, bilateral_weight=1, bilateral_xy_std=1,
                       bilateral_rgb_std=1)
        print(len(caught), caught[0].message, float(first.sum()))
    """
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, *message, total = run.stdout.split()
    assert count == "1"
    assert "no kernels for cpu: it was not built" in " ".join(message)
    native_total = bilateral_filter(torch.zeros(1, 3, 4, 4), torch.ones(1, 1, 4, 4), 15.0, 2.0).sum().item()
    assert float(total) == pytest.approx(native_total, rel=1e-6)
    assert "no kernels" not in run.stderr


def test_the_cuda_kernels_compile():
    """`make setup` builds them where an nvcc is; FSR_CUDA=0 or an unfit toolkit is the only way not to have them."""
    if shutil.which("nvcc") is None:
        pytest.skip("no nvcc: the CUDA kernels were not compiled")
    for operator in (BILATERAL, MEAN_FIELD):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(operator.name(), "CUDA")


def filtered(image, values):
    return bilateral_filter(image, values, 15.0, 10.0)


def inferred(image, values):
    return mean_field(image, values, 5, **POTTS)


@pytest.mark.gpu
@pytest.mark.parametrize("operator", [filtered, inferred])
@pytest.mark.parametrize("surface", ["picture", "constant"])
def test_a_gpu_gives_what_the_cpu_gives_and_the_same_bits_every_time(operator, surface):
    image = picture(3, 60, 70) if surface == "picture" else torch.full((3, 3, 60, 70), 120.0)
    values = random_values(3, 40, 60, 70)
    expected = operator(image, values)
    image, values = image.cuda(), values.cuda()
    first = operator(image, values)
    within(first.cpu(), expected, 1e-5)
    alone = torch.cat([operator(image[i : i + 1], values[i : i + 1]) for i in range(3)])
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        elsewhere = operator(image, values)
    torch.cuda.current_stream().wait_stream(stream)
    assert all(torch.equal(again, first) for again in (operator(image, values), alone, elsewhere))


@pytest.mark.gpu
@pytest.mark.parametrize("operator", [filtered, inferred])
def test_a_captured_graph_gives_the_same_bits(operator):
    """Also for another image than it was captured with: nothing on the host depends on the lattice."""
    image, values = torch.full((2, 3, 60, 70), 120.0).cuda(), random_values(2, 21, 60, 70).cuda()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = operator(image, values)
    image.copy_(picture(2, 60, 70))
    graph.replay()
    assert torch.equal(result, operator(image, values))


@pytest.mark.gpu
def test_the_bare_operators_want_one_device():
    image, values = torch.zeros(1, 3, 8, 8), torch.zeros(1, 2, 8, 8).cuda()
    with pytest.raises(ValueError, match="Expected one device, got cpu and cuda:0"):
        BILATERAL(image, values, 15.0, 10.0)
    with pytest.raises(ValueError, match="Expected one device, got cpu and cuda:0"):
        MEAN_FIELD(image, values, 1, *POTTS.values())


@pytest.mark.gpu
@pytest.mark.parametrize(("level", "sigma_rgb"), [(torch.nan, 15.0), (torch.inf, 15.0), (255.0, 1e-9)])
def test_a_gpu_answers_a_bad_image_with_nan(level, sigma_rgb):
    image = torch.zeros(1, 3, 8, 8)
    image[0, 0, 3, 3] = level
    assert bilateral_filter(image.cuda(), torch.ones(1, 2, 8, 8).cuda(), sigma_rgb, 10.0).isnan().all()


@pytest.mark.slow
def test_more_values_than_31_bits_count():
    """Channels that repeat a few: 2^31 + 2^20 values; memory for them and the result, 18 GB."""
    channels, side = 2**15 + 16, 256
    values = random_values(1, 8, side, side).repeat(1, channels // 8, 1, 1)
    assert values.numel() > 2**31
    filtered = bilateral_filter(picture(1, side, side), values, 15.0, 10.0)
    expected = bilateral_filter(picture(1, side, side), values[:, :8], 15.0, 10.0)
    assert torch.equal(filtered[:, -8:], expected)
    assert torch.equal(filtered[:, 2**14 : 2**14 + 8], expected)
