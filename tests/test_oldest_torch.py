"""The native op builds with the oldest torch that pyproject.toml allows, whose defaults are others."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_the_op_builds_with_the_oldest_torch(tmp_path):
    oldest = re.search(r'"torch>=([\d.]+)', (ROOT / "pyproject.toml").read_text())[1]
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv/bin/python"
    wanted = (f"torch=={oldest}.*", "setuptools>=77", "ninja")
    if subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], timeout=1200).returncode:
        pytest.skip(f"torch {oldest} cannot be had here")
    out = ("--build-lib", tmp_path / "out", "--build-temp", tmp_path / "objects")
    build = [python, "setup.py", "--quiet", "build_ext", *out]
    answer = subprocess.run(build, cwd=ROOT, env=os.environ | {"FSR_CUDA": "0"}, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    load = "import torch, fsr._C; assert torch._C._dispatch_has_kernel_for_dispatch_key('fsr::mean_field', 'CPU')"
    subprocess.run([python, "-c", load], check=True, cwd=tmp_path / "out", env={"PATH": os.environ["PATH"]})
