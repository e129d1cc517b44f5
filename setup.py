"""Build of the native op, `fsr._C`; everything else stands in pyproject.toml.

It needs torch at hand: `pip install --no-build-isolation .`, or `make`. FSR_CUDA says whether CUDA kernels are built:
`auto` (default) where an nvcc is found that fits torch's CUDA, `1` always, `0` never. Never by asking for a GPU: login
nodes have none. TORCH_CUDA_ARCH_LIST is torch's own. Without a C++ compiler the package installs without the op.
"""

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

from setuptools import setup

try:
    import torch
except ModuleNotFoundError:
    raise SystemExit("Building fsr needs torch: install it first, then pip install --no-build-isolation .") from None

CPU_SOURCES = ["bindings.cpp", "lattice_cpu.cpp", "mean_field_cpu.cpp", "rows.cpp", "simplices.cpp"]
CUDA_SOURCES = ["lattice_cuda.cu", "mean_field_cuda.cu", "pixel_adaptive.cu"]
# From Turing to Hopper as machine code; what is newer compiles the last one's PTX when it first runs.
ARCHITECTURES = "7.5;8.0;9.0+PTX"
# Where a point's rounding decides in which simplex it lies, products and sums must not be fused: every CPU and GPU
# shall see the same lattice. On x86-64 csrc/simplices.cpp sees to it, and the other loops may be fused.
CONTRACT = "fast" if platform.machine() == "x86_64" else "off"
# Messages of assertions name their file: by its place in the sources or in torch, not by where this machine has these.
TORCH = Path(torch.__file__).parent  # which may be reached by a link to the environment
PREFIXES = {Path(__file__).resolve().parent: ".", TORCH: "torch", TORCH.resolve(): "torch"}
PLACES = [f"-ffile-prefix-map={folder}={name}" for folder, name in PREFIXES.items()]
CXX_FLAGS = ["-std=c++20", "-O3", "-g0", "-fopenmp", f"-ffp-contract={CONTRACT}", "-fvisibility=hidden", "-Wno-psabi"]
CXX_FLAGS += PLACES
NVCC_FLAGS = ["-std=c++20", "-O3", "-fmad=false", *(f"-Xcompiler={flag}" for flag in PLACES)]


def cuda_toolkit() -> tuple[Path | None, str]:
    """Root of the toolkit to build CUDA kernels with, or None, and why."""
    wanted = os.environ.get("FSR_CUDA", "auto")
    if wanted not in ("auto", "0", "1"):
        raise SystemExit(f"FSR_CUDA must be auto, 0 or 1, got {wanted}")
    if wanted == "0":
        return None, "FSR_CUDA=0"
    toolkit, reason = find_toolkit()
    if wanted == "1" and toolkit is None:
        raise SystemExit(f"FSR_CUDA=1, but {reason}")
    return toolkit, f"{reason} (FSR_CUDA={wanted})"


def find_toolkit() -> tuple[Path | None, str]:
    """Root of a toolkit that fits torch, or None, and a word on it."""
    if torch.version.cuda is None:
        return None, "this torch has no CUDA"
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    nvcc = shutil.which("nvcc", path=f"{home}/bin") if home else shutil.which("nvcc")
    nvcc = nvcc or shutil.which("/usr/local/cuda/bin/nvcc")
    if nvcc is None:
        return None, "no nvcc was found"
    # The nvcc on the PATH may be a link or a script; only nvcc itself knows where its toolkit is.
    plan = subprocess.run([nvcc, "--dryrun", "-c", "none.cu"], capture_output=True, text=True).stderr
    top = re.search(r"^#\$ TOP=(.+)$", plan, re.MULTILINE)
    release = re.search(r"release (\d+)\.", subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout)
    if top is None or release is None:
        return None, f"{nvcc} does not tell its toolkit"
    toolkit = Path(top[1].strip()).resolve()
    if release[1] != torch.version.cuda.split(".")[0]:
        return None, f"{toolkit} is CUDA {release[1]} and torch was built with {torch.version.cuda}"
    return toolkit, f"with {toolkit}"


def extension_options() -> dict:
    """The arguments of `setup` that build the extension; none without a C++ compiler."""
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler) is None:
        print(f"fsr: no C++ compiler ({compiler}): installing without the native op", flush=True)
        return {}
    toolkit, reason = cuda_toolkit()
    print(f"fsr: CUDA kernels {'are' if toolkit else 'are not'} built: {reason}", flush=True)
    if toolkit:
        os.environ["CUDA_HOME"] = str(toolkit)  # torch reads it when its build tools are imported
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", ARCHITECTURES)
    from torch.utils import cpp_extension

    sources = [f"csrc/{name}" for name in CPU_SOURCES + (CUDA_SOURCES if toolkit else [])]
    kind = cpp_extension.CUDAExtension if toolkit else cpp_extension.CppExtension
    extension = kind(
        "fsr._C",
        sources,
        define_macros=[("FSR_CUDA", None)] if toolkit else [],
        extra_compile_args={"cxx": CXX_FLAGS, "nvcc": NVCC_FLAGS},
        extra_link_args=["-fopenmp"],
        depends=[str(header) for header in Path("csrc").glob("*.*h")],
    )
    return {"ext_modules": [extension], "cmdclass": {"build_ext": cpp_extension.BuildExtension}}


setup(**extension_options())
