"""What a command does before its imports, which take seconds: the first lines of its file call `begin`.

From then on Ctrl-C ends it without a traceback, and it has all three standard streams. What its imports would not get
here (memory, threads, a package), where libraries crash or hang, is one sentence.
"""

import os
import resource
import shlex
import signal
import sys
import threading
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from fsr.next_command import shown_path
from fsr.stop_signals import leave

OURS = ("fsr", "launch", "sweeps", "analysis")
LIGHT_GB, TORCH_GB = 0.6, 3.6  # of addresses that imports take (VmPeak), without torch and with it
MOST_THREADS = 64  # that libraries start, a core each


def begin(command: str, *, torch: bool = False) -> None:
    """Prepare the process of `fsr COMMAND` for what may come before its `main`. `torch`: it imports torch."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, leave)
    from fsr import errors  # now: with little memory it could not be imported when it is needed

    assert errors
    sys.excepthook = partial(tell, command)
    # A stream that is closed, as by `>&-`: else the next file that is opened gets its number, and what is printed.
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)
            os.set_inheritable(number, True)  # for processes that it starts, which expect them as well
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))
    try:
        os.getcwd()
    except OSError as error:
        refuse(f"the folder in which this command was started cannot be used: {error.strerror}; change to another one")
    check_memory(TORCH_GB if torch else LIGHT_GB)
    check_threads()


def check_memory(needed_gb: float) -> None:
    """End with a sentence where the limit of addresses is below what imports take: OpenBLAS and others hang then."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < needed_gb * 1e9:
        refuse(
            f"not enough memory: this command needs at least {needed_gb} GB, and ulimit -v allows {limit / 1e9:.1f} GB"
        )


def check_threads() -> None:
    """End with a sentence where libraries could not start their threads, for they end the process or crash then."""
    threads, enough = min(os.cpu_count() or 1, MOST_THREADS), threading.Event()
    try:
        for _ in range(threads):
            threading.Thread(target=enough.wait, daemon=True).start()
    except RuntimeError:
        limit = resource.getrlimit(resource.RLIMIT_NPROC)[0]
        refuse(f"no {threads} threads can be started, and this command needs them; allow more (ulimit -u, now {limit})")
    finally:
        enough.set()


def tell(command: str, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What Python does with an error that ends the process: one sentence where it is none of the program's own."""
    from fsr.errors import end_of, say_end

    end = end_of(error)
    if end is not None:
        say_end(*end)
    if isinstance(error, ImportError) and str(error.name).partition(".")[0] not in OURS:
        refuse(f"{sys.executable} cannot import what this command needs: {error}; {remedy(command)}")
    sys.__excepthook__(kind, error, trace)


def remedy(command: str) -> str:
    """What to type where this Python lacks a package: the same with the environment of the checkout, if it has one."""
    root = Path(__file__).resolve().parent.parent
    script = root / ".venv" / "bin" / "fsr"
    if script.exists() and script.with_name("python") != Path(sys.executable):
        return f"type this instead: {shlex.join([shown_path(script), command, *sys.argv[1:]])}"
    return f"`make setup` in {root} installs it"


def refuse(sentence: str) -> NoReturn:
    """End with a sentence on stderr, and the exit code of a user's mistake."""
    from fsr.errors import say_end
    from fsr.exit_codes import ExitCode

    say_end(ExitCode.MISTAKE, sentence)
