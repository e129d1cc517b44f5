"""What a command does before its imports, which take seconds: the first lines of its file call `begin`.

From then on Ctrl-C ends it without a traceback, it has all three standard streams, and what its imports cannot get here
(memory, files, a package) is one sentence.
"""

import os
import signal
import sys
from types import TracebackType
from typing import NoReturn

from fsr.stop_signals import leave

OURS = ("fsr", "launch", "sweeps", "analysis")


def begin() -> None:
    """Prepare the process of a command for what may come before its `main`."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, leave)
    sys.excepthook = tell
    # A stream that is closed, as by `>&-`: else the next file that is opened gets its number, and what is printed.
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))
    try:
        os.getcwd()
    except OSError as error:
        refuse(f"the folder in which this command was started cannot be used: {error.strerror}; change to another one")


def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What Python does with an error that ends the process: one sentence where it is none of the program's own."""
    from fsr.errors import end_of, say_end  # now: these are among the imports that may fail

    end = end_of(error)
    if end is not None:
        say_end(*end)
    if isinstance(error, ImportError) and str(error.name).partition(".")[0] not in OURS:
        refuse(f"{sys.executable} cannot import what this command needs: {error}; `make setup` installs it")
    sys.__excepthook__(kind, error, trace)


def refuse(sentence: str) -> NoReturn:
    """End with a sentence on stderr, and the exit code of a user's mistake."""
    from fsr.errors import say_end
    from fsr.exit_codes import ExitCode

    say_end(ExitCode.MISTAKE, sentence)
