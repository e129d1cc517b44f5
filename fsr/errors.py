"""Errors that a user can mend, reported in one sentence."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from fsr.exit_codes import ExitCode

Arguments = ParamSpec("Arguments")


class UserError(Exception):
    """A mistake that only the user can mend: a bad value, a missing or damaged file.

    Its message is one sentence: what was expected, what was found, what is allowed. Commands print it without a
    traceback.
    """


def reports_user_errors(main: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Let the command `main` end with ExitCode.MISTAKE and one line on stderr when it raises a UserError."""

    @wraps(main)
    def command(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        try:
            main(*args, **kwargs)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(ExitCode.MISTAKE)

    return command


class NotFiniteError(RuntimeError):
    """A loss became NaN or infinite; the message says which, and at which step."""
