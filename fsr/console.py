"""The console that commands print to."""

import sys

from rich.console import Console

WIDTH_ELSEWHERE = 140


def console() -> Console:
    """As wide as the terminal; in a file or a pipe of one width, so that tables are not squeezed into 80 columns."""
    return Console(width=None if sys.stdout.isatty() else WIDTH_ELSEWHERE)
