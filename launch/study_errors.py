"""What is wrong with a study's file: one sentence that names the file and the line, whatever Python makes of it."""

import importlib
import inspect
import linecache
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from optuna.exceptions import StorageInternalError

from fsr.errors import UserError

SHOWN = 300  # characters of what an error says


def study_file(name: str) -> Path:
    """Where the study of this name is defined."""
    return sweeps_folder() / f"{name}.py"


def sweeps_folder() -> Path:
    """The folder of the package `sweeps`, which is found by name: it imports `launch`, not the other way round."""
    return Path(next(iter(importlib.import_module("sweeps").__path__)))


@contextmanager
def naming_line(file: Path) -> Iterator[None]:
    """Let whatever a study's file raises be one sentence on the user's own line. `file` is named where no line is his.

    What the storage or the system says while the file's functions run is none of the file's, and raised as it is.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        if isinstance(error, OSError | StorageInternalError) and not _is_own(_last_frame(error).filename):
            raise
        raise UserError(f"{_place(error, file)}: {_words(error)}") from error


def place_of(function: Callable[..., Any], word: str, file: Path) -> str:
    """The line of a study's function, or else of its file, that has this word in quotes, as a keyword or as a
    function; the file alone where none has."""
    quoted = re.compile(rf"""["']{re.escape(word)}["']|\b{re.escape(word)}\s*=|\bdef {re.escape(word)}\b""")
    for start, lines, origin in (_source(function), (1, linecache.getlines(str(file)), file)):
        for number, line in enumerate(lines, start):
            if quoted.search(line):
                return f"{shown_path(origin)}, line {number}"
    return shown_path(file)


def nearest(word: str, allowed: list[str]) -> str:
    """What might be meant by a word: a half sentence; all that is allowed where nothing is like it."""
    near = get_close_matches(word, allowed, n=1)
    return f"did you mean {near[0]}?" if near else f"allowed: {', '.join(allowed)}"


def shown_path(file: Path) -> str:
    """A file of a study as its user knows it: `sweeps/NAME.py`, wherever the checkout or snapshot lies."""
    return f"sweeps/{file.relative_to(sweeps_folder())}" if _is_own(str(file)) else str(file)


def _source(function: Callable[..., Any]) -> tuple[int, list[str], Path]:
    try:
        lines, start = inspect.getsourcelines(function)
        file = Path(inspect.getsourcefile(function) or "")
    except (OSError, TypeError):  # no function of a file
        return 1, [], Path()
    return (start, lines, file) if _is_own(str(file)) else (1, [], file)


def _is_own(file: str) -> bool:
    return Path(file).is_relative_to(sweeps_folder())


def _last_frame(error: BaseException) -> traceback.FrameSummary:
    return traceback.extract_tb(error.__traceback__)[-1]


def _place(error: BaseException, file: Path) -> str:
    if isinstance(error, SyntaxError) and error.filename and _is_own(error.filename):
        own = [(error.filename, error.lineno)]
    else:
        frames = traceback.extract_tb(error.__traceback__)
        own = [(frame.filename, frame.lineno) for frame in frames if _is_own(frame.filename)]
    if not own:
        return shown_path(file)
    name, number = own[-1]
    line = linecache.getline(name, number).strip() if number else ""
    said = f" (`{line:.80}`)" if line else ""
    return f"{shown_path(Path(name))}, line {number}{said}"


def _words(error: BaseException) -> str:
    said = " ".join(str(error).split())[:SHOWN]
    if isinstance(error, UserError):
        return said
    if isinstance(error, SystemExit):
        return "it ends the program (sys.exit), and a study's file must only define the study"
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        return (
            f"there is no module {error.name}; install it ({sys.executable} -m pip install {package}) or mend the name"
        )
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg}"
    if isinstance(error, TypeError) and said.startswith("Study.__init__() "):
        return f"Study {said.removeprefix('Study.__init__() ')}"
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
