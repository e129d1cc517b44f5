"""Shows a sweep while it runs: a live table on a terminal, else one line for each change."""

import time
from collections.abc import Callable

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from launch.table import Row, Rows, duration, score, table

ENDED = ("complete", "pruned", "fail")
INTERVAL_S = 0.5


def watch(rows: Rows, iterations: int, wanted: int, console: Console, ended: Callable[[], bool]) -> None:
    """Show the trials until `ended` says so."""
    if console.is_terminal:
        started, before = time.monotonic(), amount(rows.read(), iterations)
        with Live(console=console, auto_refresh=False) as live:
            while True:
                last = ended()
                now = rows.read()
                spent = time.monotonic() - started
                live.update(picture(now, iterations, wanted, before, spent, console.height), refresh=True)
                if last:
                    return
                time.sleep(INTERVAL_S)
    known: dict[int, Row] = {row.number: row for row in rows.read() if row.state in ENDED}
    while True:
        last = ended()
        for row in rows.read():
            if not row.parameters:  # being claimed right now
                continue
            for line in changes(known.get(row.number), row, iterations):
                console.print(line, soft_wrap=True, highlight=False, markup=False)
            known[row.number] = row
        if last:
            return
        time.sleep(INTERVAL_S)


def changes(before: Row | None, row: Row, iterations: int) -> list[str]:
    """What happened to a trial since `before`, one line each."""
    lines = []
    name = f"trial {row.number}"
    if before is None:
        goes_on = f"goes on at step {row.step}" if row.step else "starts"
        lines.append(f"{name} {goes_on}: {row.parameters}")
    if row.evaluated > (before.evaluated if before else row.evaluated if row.state == "running" else 0):
        scores = f"seg mIoU {score(row, 'val/seg_miou')}, cam mIoU {score(row, 'val/cam_miou')}"
        lines.append(f"{name} step {row.evaluated}/{iterations}: {scores}")
    if row.state in ENDED and (before is None or before.state != row.state):
        lines.append(f"{name} {row.state}" + (f": {row.error}" if row.error else f" after {duration(row.seconds)}"))
    return lines


def amount(rows: list[Row], iterations: int) -> float:
    """Work done, in trials."""
    parts = {"complete": 1.0, "pruned": 1.0, "fail": 0.0}
    return sum(parts.get(row.state, row.step / iterations) for row in rows)


def picture(rows: list[Row], iterations: int, wanted: int, before: float, spent_s: float, height: int) -> Group:
    """The live view: the running trials and as many of the last ended as fit, and a bar over the whole study."""
    room = max(4, height - 8)
    shown = sorted(rows, key=lambda row: (row.state in ENDED, -row.number))[:room]
    done = amount(rows, iterations)
    left = duration((wanted - done) * spent_s / (done - before)) + " left" if done > before else ""
    ended = sum(row.state in ("complete", "pruned") for row in rows)
    foot = Table.grid(padding=(0, 2))
    foot.add_row(f"{ended} of {wanted} trials", ProgressBar(wanted, min(done, wanted), width=40), left)
    return Group(table(sorted(shown, key=lambda row: row.number), iterations), foot)
