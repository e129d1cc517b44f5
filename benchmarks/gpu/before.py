"""What comes before the stages, in processes of their own: the card, the native op, the tests that need a GPU."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.gpu import ROOT

LIMIT_S = 240


def card() -> tuple[str, str, str]:
    """The first card's name, driver and compute capability."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,compute_cap", "--format=csv,noheader", "--id=0"]
    name, driver, capability = subprocess.run(query, check=True, capture_output=True, text=True).stdout.split(",")
    return name.strip(), driver.strip(), capability.strip()


def build(capability: str | None, log: Path) -> dict[str, Any]:
    """Build the op into the checkout, if it is not up to date; for this card alone, which takes a third of the time."""
    of_gpu = {"FSR_CUDA": "1", "TORCH_CUDA_ARCH_LIST": capability} if capability else {}
    cores = str(len(os.sched_getaffinity(0)))
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    return said(command, os.environ | {"MAX_JOBS": cores} | of_gpu, log)


def tests(log: Path) -> dict[str, Any]:
    """Every test with the marker `gpu`. Other files of tests may need what this machine lacks."""
    files = sorted(str(file) for file in (ROOT / "tests").glob("test_*.py") if "mark.gpu" in file.read_text())
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu", "-rf", *files]
    return said(command, os.environ, log)


def said(command: list[str], environment: dict[str, str] | os._Environ[str], log: Path) -> dict[str, Any]:
    """The last line that a command says; `failed` with some more where it ends badly."""
    answer = subprocess.run(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT_S
    )
    with open(log, "a") as file:
        file.write(answer.stdout)
    lines = answer.stdout.splitlines()
    if answer.returncode:
        return {"failed": "\n".join(lines[-30:])}
    own = [line for line in lines if line.startswith("fsr: ")]  # of setup.py, between the compiler's
    return {"said": (own or lines)[-1].strip("= ")}
