"""What is built from the sources holds what its user needs, and says nothing of the machine that built it."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("fsr/", "launch/", "sweeps/", "analysis/")  # with their notebooks and the parts of their pages
PACKED = (*PACKAGES, "tests/", "csrc/", "docs/", "benchmarks/", "Makefile", "setup.", "pyproject.toml", "constraints")
BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"


def build(sources, what, out):
    environment = os.environ | {"FSR_CUDA": "0", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = [sys.executable, "-c", BUILD, what, out]
    done = subprocess.run(command, cwd=sources, env=environment, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stdout + done.stderr
    return out / done.stdout.splitlines()[-1]


@pytest.mark.slow
def test_the_sdist_builds_a_wheel_with_notebooks_and_pages_and_without_paths(tmp_path):
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    files = [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    for name in files:
        (tmp_path / "sources" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "sources" / name)
    sdist = build(tmp_path / "sources", "build_sdist", tmp_path)
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        archive.extractall(tmp_path / "unpacked", filter="data")
    needed = {name for name in files if name.startswith(PACKED)}
    assert needed <= names, sorted(needed - names)[:5]
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    wheel = build(unpacked, "build_wheel", tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        lacking = {name for name in needed if name.startswith(PACKAGES)} - set(archive.namelist())
        assert not lacking, sorted(lacking)
        places = [str(place).encode() for place in (tmp_path, ROOT, Path(sys.prefix))]
        telling = [name for name in archive.namelist() if any(place in archive.read(name) for place in places)]
        assert any("_C" in name for name in archive.namelist())
    assert telling == []
