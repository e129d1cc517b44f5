"""Shows the progress of long work: a live bar on a terminal, lines of text in a log file."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from fsr.console import console

T = TypeVar("T")


class TrainProgress:
    """Steps done, rate and time left: a live bar on a terminal, lines of text elsewhere."""

    def __init__(self, first_step: int, iterations: int) -> None:
        self.first_step, self.iterations = first_step, iterations
        self.started = time.monotonic()
        self.bar = None
        if sys.stdout.isatty():
            columns = (
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}", markup=False),
                TimeRemainingColumn(),
                TextColumn("{task.fields[losses]}", markup=False),
            )
            self.bar = Progress(*columns, console=console())
            self.task = self.bar.add_task("", total=iterations, completed=first_step, rate="", losses="")
            self.bar.start()

    def step(self, step: int) -> None:
        """`step` steps are done."""
        if self.bar:
            self.bar.update(self.task, completed=step)

    def record(self, step: int, losses: dict[str, float]) -> float:
        """Show the mean losses of the last interval; returns the rate in steps per second."""
        elapsed = time.monotonic() - self.started
        rate = (step - self.first_step) / elapsed
        shown = " ".join(f"{name} {losses[name]:.3f}" for name in ("loss", "cls_top", "patch", "seg"))
        if self.bar:
            self.bar.update(self.task, rate=f"{rate:.2f} steps/s", losses=shown)
        else:
            minutes, seconds = divmod(round((self.iterations - step) / rate), 60)
            self.say(f"step {step}/{self.iterations}  {rate:.2f} steps/s  {minutes}:{seconds:02} left  {shown}")
        return rate

    def say(self, line: str) -> None:
        """Print one line."""
        if self.bar:
            self.bar.console.print(line, highlight=False)
        else:
            print(line, flush=True)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Hide the bar while another one is shown."""
        if self.bar:
            self.bar.stop()
        yield
        if self.bar:
            self.bar.start()

    def close(self) -> None:
        """Remove the bar."""
        if self.bar:
            self.bar.stop()


def with_progress(steps: Iterable[T], total: int, label: str, interval_s: float = 10.0) -> Iterator[T]:
    """The elements of `steps`, shown on stderr as they pass: a bar on a terminal, else a line every `interval_s`."""
    screen = console(stderr=True)
    if not screen.is_terminal:
        yield from _with_lines(steps, total, label, interval_s)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=screen, transient=True) as progress:
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
