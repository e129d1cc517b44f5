"""The CUDA kernels without a GPU: compiled for the CPU, their threads in any order (see cuda_on_cpu/cuda_runtime.h)."""

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_native import POTTS, reference_mean_field, within
from test_ops import picture, random_values
from torch.utils.cpp_extension import include_paths, library_paths

from fsr.ops import bilateral_filter, mean_field, pixel_adaptive, reference
from fsr.refine import DILATIONS, STEEPNESS, position_weights

ROOT = Path(__file__).resolve().parent.parent
EMULATION = ROOT / "tests/cuda_on_cpu"
ORDERS = ["forward", "reversed", "shuffled", "threaded"]
LONGEST_CHAIN = 256
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory):
    """The CUDA operators, for tensors on the CPU. CXXFLAGS are the compiler's."""
    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler")
    folder = tmp_path_factory.mktemp("cuda_on_cpu")
    files = {"lattice_cuda.cuh": 15, "lattice_cuda.cu": 2, "mean_field_cuda.cu": 5, "pixel_adaptive.cu": 2}
    for name, least in files.items():
        code = (ROOT / "csrc" / name).read_text()
        code, launches = re.subn(r"([\w:]+(?:<\w+>)?)<<<(.*?)>>>\(", r"emulated::launch(\1, \2)(", code)
        assert launches >= least
        assert "<<<" not in code
        (folder / (name if name.endswith(".cuh") else f"{name}.cpp")).write_text(code)
    library = folder / "operators.so"
    fused = ["-mfma"] if platform.machine() == "x86_64" else []
    command = ["c++", "-std=c++20", "-O1", "-fPIC", "-shared", "-pthread", "-ffp-contract=off", *fused]
    command += ["-U_FORTIFY_SOURCE"]  # it takes a jump to another fibre for a mistake
    command += ["-Wall", "-Werror", "-Wno-unknown-pragmas", *os.environ.get("CXXFLAGS", "").split()]
    command += [f"-I{path}" for path in (EMULATION, ROOT / "csrc", folder)]
    command += [f"-isystem{path}" for path in include_paths()] + [f"-L{path}" for path in library_paths()]
    subprocess.run([*command, str(EMULATION / "operators.cpp"), "-o", str(library), "-lc10", "-ltorch_cpu"], check=True)
    torch.ops.load_library(library)
    return torch.ops.fsr_cuda_on_cpu


def in_every_order(on_cpu, call):
    """What the call gives: the same bits in each order of the threads."""
    results = []
    for seed, order in enumerate(ORDERS):
        on_cpu.set_order(order, seed)
        results.append(call())
    on_cpu.set_order("forward", 0)
    assert all(torch.equal(result, results[0]) for result in results)
    return results[0]


@pytest.mark.parametrize(
    ("batch", "channels", "height", "width", "sigma_rgb", "sigma_xy"),
    [
        (1, 3, 17, 23, 15, 10),
        (2, 21, 19, 11, 15, 10),
        (1, 81, 11, 13, 15, 10),
        (1, 133, 9, 18, 15, 10),  # more channels than are filtered at a time
        (2, 2, 20, 30, 0.5, 0.5),
        (1, 2, 1, 1, 15, 10),
        (3, 1, 1, 37, 15, 10),
        (2, 5, 100, 90, 300, 300),  # vertices with many shares
    ],
)
def test_the_filter_is_the_same_in_any_order(on_cpu, batch, channels, height, width, sigma_rgb, sigma_xy):
    image, values = picture(batch, height, width), random_values(batch, channels, height, width) - 0.3
    ours = in_every_order(on_cpu, lambda: on_cpu.bilateral_filter(image, values, sigma_rgb, sigma_xy))
    within(ours, bilateral_filter(image, values, sigma_rgb, sigma_xy), 2e-6)
    within(ours, reference.bilateral_filter(image, values, sigma_rgb, sigma_xy), 2e-6)
    alone = on_cpu.bilateral_filter(image[-1:], values[-1:], sigma_rgb, sigma_xy)
    assert torch.equal(alone[0], ours[-1])


@pytest.mark.parametrize(
    ("batch", "channels", "height", "width", "potts"),
    [
        pytest.param(2, 21, 35, 50, {}, marks=pytest.mark.slow),
        (2, 3, 33, 47, {"spatial_std": 3.0, "bilateral_xy_std": 36.0, "bilateral_rgb_std": 3.0}),
        pytest.param(1, 81, 18, 20, {}, marks=pytest.mark.slow),
        (2, 5, 60, 50, {"spatial_std": 9.0}),
        (1, 5, 20, 35, {"spatial_std": 0.4}),
        (9, 2, 17, 18, {}),  # more images than are computed at a time, and on more streams than one
    ],
)
def test_the_mean_field_is_the_same_in_any_order(on_cpu, batch, channels, height, width, potts):
    image, logits = picture(batch, height, width), 4 * random_values(batch, channels, height, width)
    potts = POTTS | potts
    ours = in_every_order(on_cpu, lambda: on_cpu.mean_field(image, logits, 3, *potts.values()))
    torch.testing.assert_close(ours, mean_field(image, logits, 3, **potts), rtol=0, atol=1e-5)
    torch.testing.assert_close(ours, reference_mean_field(image, logits, 3, potts), rtol=0, atol=1e-4)
    alone = on_cpu.mean_field(image[-1:], logits[-1:], 3, *potts.values())
    assert torch.equal(alone[0], ours[-1])


@pytest.mark.parametrize("channels", [1, 6, 19])
def test_pixel_adaptive_smoothing_is_the_same_in_any_order(on_cpu, channels):
    image, masks = picture(2, 20, 31) / 255, random_values(2, channels, 20, 31)
    settings = list(DILATIONS), 3, STEEPNESS, position_weights(image.device)
    ours = in_every_order(on_cpu, lambda: on_cpu.pixel_adaptive(image, masks, *settings))
    dilations, iterations, steepness, position = settings
    theirs = pixel_adaptive(image, masks, tuple(dilations), iterations, steepness=steepness, position=position)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)


@pytest.mark.parametrize(("level", "sigma_rgb"), [(torch.nan, 15.0), (torch.inf, 15.0), (255.0, 1e-9)])
def test_a_bad_image_gives_nan(on_cpu, level, sigma_rgb):
    image, values = torch.zeros(1, 3, 18, 8), torch.ones(1, 2, 18, 8)
    image[0, 0, 3, 3] = level
    assert on_cpu.bilateral_filter(image, values, sigma_rgb, 10.0).isnan().all()
    assert on_cpu.mean_field(image, values, 1, *(POTTS | {"bilateral_rgb_std": sigma_rgb}).values()).isnan().all()


@pytest.mark.parametrize("white", [0.4, 1.0])
def test_no_thread_adds_up_a_plain_surface_alone(on_cpu, white):
    """A vertex of a plain image has ten thousands of corners: one thread's sum would take longer than all else."""
    image = picture(1, 375, 500)
    image[:, :, : int(white * 375)] = 255
    on_cpu.counts()
    on_cpu.bilateral_filter(image, torch.ones(1, 1, 375, 500), 5.0, 121.0)
    _, longest = on_cpu.counts()
    assert 50 < longest <= LONGEST_CHAIN


def test_launches_are_few(on_cpu):
    image, logits = picture(1, 20, 20), random_values(1, 21, 20, 20)
    on_cpu.counts()
    on_cpu.mean_field(image, logits, 0, *POTTS.values())
    start, _ = on_cpu.counts()
    on_cpu.mean_field(image, logits, 10, *POTTS.values())
    launches, longest = on_cpu.counts()
    assert (start, launches - start) == (41, 10 * 5)
    assert longest <= LONGEST_CHAIN


@pytest.mark.slow
def test_no_kernel_leaves_its_memory():
    """This file again under AddressSanitizer and UBSan."""
    names = "libasan.so", "libubsan.so", "libstdc++.so"
    preload = [
        subprocess.run(["c++", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()
        for name in names
    ]
    environment = os.environ | {
        "CXXFLAGS": " ".join(SANITIZE),
        "LD_PRELOAD": " ".join(preload),
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", "any_order or bad_image"]
    run = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
