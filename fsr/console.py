"""Where commands print their tables."""

import sys
from collections.abc import Iterable
from typing import IO, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from fsr.shown import shown


class ShowingConsole(Console):
    """A console that prints text as it is: `[red]` and `:smile:` are letters, control characters are shown."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """A text as it may be shown, before its width is measured."""
        return super().render_str(shown(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """What is drawn, in segments: their text is data, only the console's own controls are sent."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(shown(segment.text), segment.style)

    @property
    def file(self) -> IO[str]:
        """Where it writes: below all that shows what is printed, of which a live view puts another one on top."""
        file = super().file
        while hasattr(file, "rich_proxied_file"):
            file = file.rich_proxied_file
        return file

    @file.setter
    def file(self, new_file: IO[str]) -> None:
        self._file = new_file

    def on_broken_pipe(self) -> None:
        """Let the command end as it does when it prints: `fsr.errors` knows how."""
        raise


def console(*, stderr: bool = False) -> Console:
    """The console of standard output or error: as wide as the terminal, or 140 columns where there is none.

    Rich takes 80 columns for a file or a pipe, and would cut the tables of this project, which need more.
    """
    stream = sys.stderr if stderr else sys.stdout
    return ShowingConsole(width=None if stream is not None and stream.isatty() else 140, stderr=stderr)
