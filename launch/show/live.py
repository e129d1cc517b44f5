"""Shows a sweep while it runs: a live table on a terminal, else one line for each change."""

import time
from collections.abc import Callable

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fsr.score_names import CAM_MIOU, SEG_MIOU
from launch.show.messages import say
from launch.show.table import Row, Rows, duration, score, table

ENDED = ("complete", "pruned", "fail")
INTERVAL_S = 0.5


Notices = Callable[[], list[str]]


def watch(
    rows: Rows,
    before: list[Row],
    iterations: int,
    target: int,
    console: Console,
    ended: Callable[[], bool],
    notices: Notices = list,
) -> None:
    """Show the trials until `ended` says so.

    `before` is how they stood when the sweep began; `notices` are sentences on who works, by default none.
    """
    if console.is_terminal:
        watch_table(rows, before, iterations, target, console, ended, notices)
    else:
        watch_lines(rows, before, iterations, console, ended, notices)


def watch_table(
    rows: Rows,
    before: list[Row],
    iterations: int,
    target: int,
    console: Console,
    ended: Callable[[], bool],
    notices: Notices = list,
) -> None:
    """A table that is drawn anew twice a second, with the notices below it."""
    started = time.monotonic()
    with Live(console=console, auto_refresh=False, transient=True) as live:
        last = False
        while not last:
            last = ended()
            spent_s = time.monotonic() - started
            below = notices()
            height = console.height - len(below)
            drawn = picture(rows.read(), before, iterations, target, spent_s, height)
            live.update(Group(drawn, *map(Text, below)), refresh=True)
            time.sleep(0 if last else INTERVAL_S)


def watch_lines(
    rows: Rows,
    before: list[Row],
    iterations: int,
    console: Console,
    ended: Callable[[], bool],
    notices: Notices = list,
) -> None:
    """A line for each start, evaluation and end, and for each notice once."""
    known = {row.number: row for row in before if row.parameters}
    told: set[str] = set()
    last = False
    while not last:
        last = ended()
        for notice in notices():
            if notice not in told:
                say(console, notice)
            told.add(notice)
        for row in rows.read():
            if row.state not in ENDED and row.seconds is None:  # not claimed, or being claimed right now
                continue
            for line in changes(known.get(row.number), row, iterations):
                console.print(line, soft_wrap=True, highlight=False, markup=False)
            known[row.number] = row
        time.sleep(0 if last else INTERVAL_S)


def changes(before: Row | None, row: Row, iterations: int) -> list[str]:
    """What happened to a trial since `before`, one line each."""
    lines = []
    name = f"trial {row.number}"
    if before is None:
        lines.append(f"{name} starts: {row.parameters}")
    elif row.state == "waiting" and before.state != "waiting":
        lines.append(
            f"{name} is interrupted at step {row.progress.step}: {row.causes[-1] if row.causes else 'unknown'}"
        )
    elif before.state == "waiting" and row.state != "waiting":
        lines.append(f"{name} resumes at step {before.progress.step}: {row.parameters}")
    if row.progress.evaluated > (before.progress.evaluated if before else 0):
        scores = f"seg mIoU {score(row, SEG_MIOU)}, cam mIoU {score(row, CAM_MIOU)}"
        lines.append(f"{name} step {row.progress.evaluated}/{iterations}: {scores}")
    if row.state in ENDED and (before is None or before.state not in ENDED):
        lines.append(f"{name} {row.state}" + (f": {row.error}" if row.error else f" after {duration(row.seconds)}"))
    return lines


def amount(rows: list[Row], iterations: int) -> float:
    """Work done, in trials."""
    parts = {"complete": 1.0, "pruned": 1.0, "fail": 0.0}
    return sum(parts.get(row.state, row.progress.step / iterations) for row in rows)


def picture(rows: list[Row], before: list[Row], iterations: int, target: int, spent_s: float, height: int) -> Group:
    """The live view: the running trials and as many of the last ended as fit, and a bar over the whole study."""
    room = max(4, height - 8)
    shown = sorted(rows, key=lambda row: (row.state in ENDED, -row.number))[:room]
    done = amount(rows, iterations)
    since = done - amount(before, iterations)
    left = duration((target - done) * spent_s / since) + " left" if since > 0 else ""
    ended = sum(row.state in ("complete", "pruned") for row in rows)
    foot = Table.grid(padding=(0, 2))
    foot.add_row(f"{ended} of {target} trials", ProgressBar(target, min(done, target), width=40), left)
    return Group(table(sorted(shown, key=lambda row: row.number), iterations), foot)
