"""A checkout with another method: launch/worker/method.py is where a job calls it, and a test may put its own there."""

import atexit
import functools
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent

# The study smoke with a second micro-batch in each step, so that one process or two may train it.
PAIR = """from dataclasses import replace

from sweeps import smoke

study = replace(smoke.study, name="pair", settings=smoke.study.settings | {"ranks": 2})
"""


@functools.cache
def checkout(method: Path) -> Path:
    """The project's packages, with this file in the place of launch/worker/method.py; made once a test run."""
    folder = Path(tempfile.mkdtemp(prefix=f"checkout_{method.stem}_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "fsr").symlink_to(ROOT / "fsr")
    return copy_launch(folder, method)


def private_checkout(folder: Path, method: Path) -> Path:
    """One that a test may change."""
    shutil.copytree(ROOT / "fsr", folder / "fsr", ignore=shutil.ignore_patterns("__pycache__"))
    return copy_launch(folder, method)


def copy_launch(folder: Path, method: Path) -> Path:
    """Put launch/ with this method there, and sweeps/ with the study pair."""
    for package in ("launch", "sweeps"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "sweeps" / "pair.py").write_text(PAIR)
    shutil.copy(method, folder / "launch" / "worker" / "method.py")
    return folder


def sweep_command(method: Path) -> list[str]:
    """`python launch/sweep.py` of that checkout; to be run with its `surroundings`."""
    return command_of(checkout(method))


def surroundings(method: Path, **variables: str) -> dict[str, Any]:
    """Options of subprocess for commands of that checkout: as its user would run them, in its folder."""
    return surroundings_of(checkout(method), **variables)


def command_of(folder: Path) -> list[str]:
    """`python launch/sweep.py` of the checkout in this folder."""
    return [sys.executable, str(folder / "launch" / "sweep.py")]


def surroundings_of(folder: Path, **variables: str) -> dict[str, Any]:
    """Options of subprocess for commands of the checkout in this folder."""
    return {"cwd": folder, "env": os.environ | variables | {"PYTHONPATH": str(folder)}}


def overlaid(words: list[Any], options: Iterable[Any]) -> list[Any]:
    """A command line with further options, which replace what it says of the same flags: none may be given twice."""
    options = list(options)
    flags = {str(word).partition("=")[0] for word in options if str(word).startswith("--")} - {"--sbatch"}
    places = [place for place, word in enumerate(words) if word in flags]
    return [word for place, word in enumerate(words) if not {place, place - 1} & set(places)] + options
