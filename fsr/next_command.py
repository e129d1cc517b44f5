"""How a command of this project is typed, as every line of the program that says what to type next shows it."""

import os
import shlex
import sys
from pathlib import Path


def next_command(name: str, *words: str | Path) -> str:
    """The line that runs `fsr NAME WORDS` with this Python, whatever is activated: `.venv/bin/fsr status --watch`.

    Paths are as `shown_path` shows them. Where the package is not installed beside this Python, it is
    `PYTHON -m launch.commands NAME WORDS`.
    """
    python = Path(sys.executable)
    script = python.with_name("fsr")
    start, more = (script, []) if script.exists() else (python, ["-m", "launch.commands"])
    typed = [shown_path(word) if isinstance(word, Path) else word for word in words]
    return shlex.join([shown_path(start), *more, *name.split(), *typed])


def shown_path(path: Path) -> str:
    """A path as it may be typed here: relative below the current folder, else absolute.

    A worker's sentence is read elsewhere, and its current folder is a code snapshot, below which nothing lies that it
    names.
    """
    here, whole = Path.cwd(), Path(os.path.abspath(path))
    if not whole.is_relative_to(here):
        return str(whole)
    text = str(whole.relative_to(here))
    return text if path.is_dir() or "/" in text else f"./{text}"


def study_words(study: str, runs: Path) -> list[str | Path]:
    """The words that name a study to a command; those of `--runs` only where it is not the default."""
    where: list[str | Path] = [] if runs.absolute() == Path("runs").absolute() else ["--runs", runs.absolute()]
    return ["--study", study, *where]
