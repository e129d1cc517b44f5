"""How far a run is, on a terminal or in a log file."""

import sys
import time

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class TrainProgress:
    """Steps done, rate and time left: a live bar on a terminal, plain lines elsewhere."""

    def __init__(self, first_step: int, iterations: int) -> None:
        self.first_step, self.iterations = first_step, iterations
        self.started = time.monotonic()
        self.bar = None
        if sys.stdout.isatty():
            columns = (
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[losses]}"),
            )
            self.bar = Progress(*columns)
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
        """One line of news."""
        if self.bar:
            self.bar.console.print(line, highlight=False)
        else:
            print(line, flush=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self.bar:
            self.bar.stop()
