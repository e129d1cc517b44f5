"""How a command of this project is typed, as every line of the program that says what to type next shows it."""

import shlex
import sys
from pathlib import Path


def next_command(name: str, *words: str | Path) -> str:
    """The line that runs `fsr NAME WORDS` with this Python, whatever is activated: `.venv/bin/fsr status --watch`.

    Where the package is not installed beside this Python, `PYTHON -m launch.commands NAME WORDS`.
    """
    python = Path(sys.executable)
    script = python.with_name("fsr")
    start, more = (script, []) if script.exists() else (python, ["-m", "launch.commands"])
    if start.is_relative_to(Path.cwd()):
        start = start.relative_to(Path.cwd())
    return shlex.join([str(start), *more, name, *map(str, words)])
