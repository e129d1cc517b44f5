"""Shows a sweep while it runs: a live picture on a terminal, else one line for each change."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from fsr.score_names import CAM_MIOU, SEG_MIOU
from launch.show.messages import say
from launch.show.picture import Standing, picture, worth
from launch.show.table import Row, Rows, best_of, duration, score

ENDED = ("complete", "pruned", "fail")
FINAL = (("finished",), ("pruned",), ("not finite",))  # after which a worker only tells the study how the trial ended
INTERVAL_S = 0.5
AT_END = 1_000  # lines of a file in which a sweep ends; `fsr status` tells of all trials
UNBROKEN = 10_000  # cells of a line where nobody has to fit it into a terminal

Notices = Callable[[], list[str]]


@dataclass(frozen=True)
class Watched:
    """A sweep that is watched."""

    rows: Rows
    iterations: int
    """Steps of a whole run."""
    target: int
    """Trials wanted."""
    before: Sequence[Row]
    """How the trials stood when the sweep began."""
    started: float = field(default_factory=time.monotonic)

    def standing(self) -> Standing:
        """How it stands now. What is left is told from what was done since it began."""
        rows = self.rows.read()
        done, at_first = (sum(worth(row, self.iterations) for row in some) for some in (rows, self.before))
        spent_s = time.monotonic() - self.started
        left_s = (self.target - done) * spent_s / (done - at_first) if done > at_first else None
        return Standing(rows, self.iterations, self.target, left_s, best_of(rows), self.rows.log_of)


def watch(watched: Watched, console: Console, ended: Callable[[], bool], notices: Notices = list) -> None:
    """Show the trials until `ended` says so; `notices` are sentences on who works, by default none."""
    if console.is_terminal:
        watch_picture(watched.standing, console, ended, notices, INTERVAL_S)
    else:
        watch_lines(watched, console, ended, notices)


def watch_picture(
    standing: Callable[[], Standing], console: Console, ended: Callable[[], bool], notices: Notices, interval_s: float
) -> None:
    """A picture as high and wide as the terminal, drawn anew again and again."""
    with Live(console=console, auto_refresh=False, transient=True, vertical_overflow="crop") as live:
        last = False
        while not last:
            last = ended()
            lines = picture(standing(), notices(), console.width, console.height - 1)
            live.update(on_console(lines, console), refresh=True)
            time.sleep(0 if last else interval_s)


def show(standing: Standing, notices: Sequence[str], console: Console, most: int | None = None) -> None:
    """Print how a study stands, once: what a terminal has room for; to a file or a pipe everything, or `most` lines."""
    fits = (console.width, console.height - 1) if console.is_terminal else (UNBROKEN, most)
    console.print(on_console(picture(standing, notices, *fits), console), soft_wrap=not console.is_terminal)


def on_console(lines: Sequence[Text], console: Console) -> Group:
    """Lines as they are, each on one of the terminal's; an ellipsis has one cell on any."""
    if console.options.ascii_only:
        for line in lines:
            line.plain = line.plain.replace("…", "~")
    for line in lines:
        line.no_wrap, line.overflow = True, "ignore"
    return Group(*lines)


def watch_lines(watched: Watched, console: Console, ended: Callable[[], bool], notices: Notices = list) -> None:
    """A line for each start, evaluation and end, and for each notice once."""
    known = {row.number: row for row in watched.before if row.parameters}
    told: set[str] = set()
    last = False
    while not last:
        last = ended()
        for notice in notices():
            if notice not in told:
                say(console, notice)
            told.add(notice)
        for row in watched.rows.read():
            if row.state not in ENDED and row.seconds is None:  # not claimed, or being claimed right now
                continue
            for line in changes(known.get(row.number), row, watched.iterations):
                console.print(line, soft_wrap=True, highlight=False, markup=False)
            known[row.number] = row
        time.sleep(0 if last else INTERVAL_S)


def changes(before: Row | None, row: Row, iterations: int) -> list[str]:
    """What happened to a trial since `before`, one line each."""
    lines = []
    name = f"trial {row.number}"
    if before is None:
        lines.append(f"{name} starts: {row.parameters}")
    elif row.state == "waiting" and before.state != "waiting" and row.causes[-1:] not in FINAL:
        lines.append(
            f"{name} is interrupted at step {row.progress.step}: {row.causes[-1] if row.causes else 'unknown'}"
        )
    elif before.state == "waiting" and (row.state == "running" or len(row.causes) > len(before.causes)):
        lines.append(f"{name} resumes at step {before.progress.step}: {row.parameters}")
    if row.progress.evaluated > (before.progress.evaluated if before else 0):
        scores = f"seg mIoU {score(row, SEG_MIOU)}, cam mIoU {score(row, CAM_MIOU)}"
        lines.append(f"{name} step {row.progress.evaluated}/{iterations}: {scores}")
    if row.state in ENDED and (before is None or before.state not in ENDED):
        lines.append(f"{name} {row.state}" + (f": {row.error}" if row.error else f" after {duration(row.seconds)}"))
    return lines
