"""Errors that a user can mend, reported in one sentence."""

import codecs
import io
import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from fsr.exit_codes import ExitCode
from fsr.system_errors import sentence_of

Arguments = ParamSpec("Arguments")


class UserError(Exception):
    """A mistake that only the user can mend: a bad value, a missing or damaged file.

    Its message is one sentence: what was expected, what was found, what is allowed. Commands print it without a
    traceback.
    """


# What a terminal without Unicode shows for the signs that our messages are written with.
PLAIN = {"×": "x", "±": "+-", "…": "...", "–": "-", "—": "-", "→": "->", "≤": "<=", "≥": ">=", "²": "2", "σ": "sigma"}


def in_plain_letters(error: UnicodeError) -> tuple[str, int]:
    """The handler `plain` of encoding errors: signs by letters, anything else by a question mark."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(PLAIN.get(sign, "?") for sign in error.object[error.start : error.end]), error.end


codecs.register_error("plain", in_plain_letters)


def print_on_any_terminal() -> None:
    """Let standard output and errors replace what their encoding lacks (LANG=C, a serial console), not raise."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="plain")


def reports_user_errors(main: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Let the command `main` end with one line on stderr and an exit code when it raises a UserError, or cannot write
    (MISTAKE), or a LostGpuError (BROKEN)."""

    @wraps(main)
    def command(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        print_on_any_terminal()
        try:
            main(*args, **kwargs)
        except (UserError, LostGpuError) as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(ExitCode.MISTAKE if isinstance(error, UserError) else ExitCode.BROKEN)
        except (OSError, RuntimeError) as error:
            sentence = sentence_of(error)
            if sentence is None:
                raise
            print(f"error: {sentence}", file=sys.stderr)
            sys.exit(ExitCode.MISTAKE)

    return command


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
