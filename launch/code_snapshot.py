"""The code of a study, copied when it is first launched, so that a changed checkout neither breaks nor leaks in."""

import inspect
import os
import shutil
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("fsr", "launch", "sweeps")


def take(folder: Path, train: Callable[..., str]) -> str:
    """Copy the packages, native op included, and the file of the function `train` to `folder`, unless that was done.

    Returns the name `module:function` under which tasks find `train` there.
    """
    module = Path(inspect.getfile(train)).resolve()
    inside = module.is_relative_to(ROOT / "launch")
    name = ".".join(module.relative_to(ROOT).with_suffix("").parts) if inside else module.stem
    if not folder.exists():
        unfinished = folder.with_name(f".{folder.name}.{os.getpid()}")
        for package in PACKAGES:
            shutil.copytree(ROOT / package, unfinished / package, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        if not inside:
            shutil.copy2(module, unfinished)
        unfinished.replace(folder)
    return f"{name}:{train.__name__}"
