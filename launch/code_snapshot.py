"""The code of a study, copied when it is first launched, so that a changed checkout neither breaks nor leaks in."""

import os
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("fsr", "launch", "sweeps")


def take(folder: Path) -> None:
    """Copy the packages that jobs import, native op included, to `folder`, unless that was done before."""
    if folder.exists():
        return
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, unfinished / package, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    unfinished.replace(folder)
