"""Where commands print their tables."""

import sys

from rich.console import Console


def console() -> Console:
    """The console of standard output: as wide as the terminal, or 140 columns where there is none.

    Rich takes 80 columns for a file or a pipe, and would cut the tables of this project, which need more.
    """
    return Console(width=None if sys.stdout is not None and sys.stdout.isatty() else 140)
