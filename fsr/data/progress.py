"""Progress of a long loop, with its rate and the time left."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

T = TypeVar("T")


def with_progress(steps: Iterable[T], total: int, label: str, interval_s: float = 10.0) -> Iterator[T]:
    """The elements of `steps`, shown on stderr as they pass: a bar on a terminal, else a line every `interval_s`."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield from _with_lines(steps, total, label, interval_s)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        yield from progress.track(steps, total=total, description=label)


def _with_lines(steps: Iterable[T], total: int, label: str, interval_s: float) -> Iterator[T]:
    start = shown = time.monotonic()
    for done, step in enumerate(steps, 1):
        yield step
        now = time.monotonic()
        if now - shown >= interval_s:
            shown = now
            rate = done / (now - start)
            left_s = (total - done) / rate
            print(f"{label}: {done} of {total}, {rate:.0f}/s, {left_s:.0f} s left", file=sys.stderr, flush=True)


class _Rate(ProgressColumn):
    """Elements per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.0f}/s" if task.speed else "")
