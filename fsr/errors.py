"""Errors that a user can mend, reported in one sentence."""

import codecs
import io
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import NoReturn, ParamSpec, TextIO

from fsr.exit_codes import ExitCode
from fsr.shown import ShowingStream, in_one_line, in_plain_letters
from fsr.stop_signals import leave
from fsr.system_errors import sentence_of

Arguments = ParamSpec("Arguments")
STREAMS = {"stdout": "standard output", "stderr": "standard error"}


class UserError(Exception):
    """A mistake that only the user can mend: a bad value, a missing or damaged file.

    Its message is one sentence: what was expected, what was found, what is allowed. Commands print it without a
    traceback.
    """


codecs.register_error("plain", in_plain_letters)


def show_on_any_terminal() -> None:
    """Let standard output and error show what is printed: control characters are not sent, and what an encoding lacks
    (LANG=C, a serial console) is replaced, not an error."""
    for name, called in STREAMS.items():
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and not isinstance(stream, ShowingStream):
            stream.reconfigure(errors="plain")
            setattr(sys, name, ShowingStream(stream, called))


def reports_user_errors(main: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Let the command `main` end with one line on stderr and an exit code where an error is none of the program's own
    (see `end_of`)."""

    @wraps(main)
    def command(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        show_on_any_terminal()
        interrupts = signal.getsignal(signal.SIGINT)
        if interrupts is leave:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            try:
                main(*args, **kwargs)
            except SystemExit:
                flush(sys.stdout)
                raise
            flush(sys.stdout)
        except (Exception, KeyboardInterrupt) as error:
            end = end_of(error)
            if end is None:
                raise
            say_end(*end)
        finally:
            if interrupts is leave:  # nothing is left to be done, but Python's own end takes a while
                signal.signal(signal.SIGINT, leave)

    return command


def end_of(error: BaseException) -> tuple[int, str | None] | None:
    """Exit code and sentence of an error that ends a command: the user's mistake, or what this machine does not give.

    None for an error of the program itself, of which a traceback tells more.
    """
    if isinstance(error, UserError):
        return ExitCode.MISTAKE, str(error)
    if isinstance(error, LostGpuError):
        return ExitCode.BROKEN, str(error)
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.INTERRUPTED, None
    if isinstance(error, OSError) and error.filename in STREAMS.values():
        if isinstance(error, BrokenPipeError):  # its reader, such as head, has seen enough
            return 128 + signal.SIGPIPE, None
        return ExitCode.MISTAKE, f"{error.filename} cannot be written: {error.strerror}"
    sentence = sentence_of(error)
    return None if sentence is None else (ExitCode.MISTAKE, sentence)


def say_end(code: int, sentence: str | None) -> NoReturn:
    """End the process with a sentence on stderr, if that can be written, and this exit code."""
    with suppress(OSError):
        if sentence is not None:
            print(f"error: {in_one_line(sentence)}", file=sys.stderr, flush=True)
    for stream in (sys.stdout, sys.stderr):
        try:
            flush(stream)
        except OSError:  # Python would try again at its end, and give another exit code
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)


def flush(stream: TextIO | None) -> None:
    """Bring to the system what was printed; Python has no stream where it was started without."""
    if stream is not None:
        stream.flush()


class UnreadableError(UserError):
    """A file or folder that is missing, or that the system does not let be read: the user's mistake, unless it is so on
    one machine alone."""


def unreadable(reason: Exception) -> type[UserError]:
    """The class of a UserError with this reason: a damaged file, or a folder in its place, is one on every machine."""
    return UnreadableError if isinstance(reason, OSError) and reason.errno else UserError


class LostGpuError(RuntimeError):
    """A GPU that was promised to this process is not there: the node's fault. Its message is one sentence."""


class NotFiniteError(RuntimeError):
    """A loss became NaN or infinite; the message says which, and at which step."""


class LoaderError(RuntimeError):
    """The processes that load a rank's images failed it; its own state is that after the last whole step."""


class LostLoaderError(LoaderError):
    """A loader worker died; the message says of what."""


class SilentLoaderError(LoaderError):
    """The loader workers gave nothing for so long that they must hang; the message names the files they have open."""
