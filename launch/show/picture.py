"""How a study stands, as lines that fit a terminal: a bar, the trials that matter most, and what the rest are."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len
from rich.text import Text

from launch.show.table import DAMAGED, STYLES, Row, duration
from launch.show.trial_lines import cut, note, trial_lines, wrapped

BAR = (10, 40)  # cells, at least and at most
FEW = 3  # trials that failed, or wait, before those that ended well
MOST_ERRORS = 3  # kinds of them, each with the path of a log
FIRST = ("running", DAMAGED, "fail", "waiting")  # the states that are shown first where not all trials have room


@dataclass(frozen=True)
class Standing:
    """What is to be drawn."""

    rows: Sequence[Row]
    iterations: int
    target: int
    left_s: float | None = None
    """Seconds until all is done, if that can be said."""
    best: int | None = None
    """Number of the best trial."""
    log_of: Callable[[Row], str] = field(default=lambda row: "")
    """Where the log of a failed trial lies."""


def picture(standing: Standing, notices: Sequence[str], width: int, height: int | None = None) -> list[Text]:
    """Lines of at most `width` cells, and no more than `height`, where that is given and has room for ten.

    Header, bar and the notices are always there; of the trials those that run, failed or are the best, before others.
    """
    head = [bar(standing, width)]
    foot = [*errors(standing, width), *(line for notice in notices for line in wrapped(notice, width))]
    if height is None:
        return [*head, *trial_lines(standing.rows, standing.iterations, width, standing.best), *foot]
    foot = foot if len(foot) <= height // 2 else [*foot[: height // 2 - 1], Text("…", "dim")]
    room = height - len(head) - len(foot)
    shown = most_important(standing, max(1, room))
    while True:
        numbers = {row.number for row in shown}
        hidden = [row for row in standing.rows if row.number not in numbers]
        more = [cut(Text(rest(hidden), "dim"), width)] if hidden else []
        lines = [*trial_lines(shown, standing.iterations, width, standing.best), *more]
        if len(lines) <= room or len(shown) <= 1:
            return [*head, *lines, *foot][:height]
        shown = most_important(standing, max(1, min(len(shown) - 1, len(shown) - (len(lines) - room))))


def most_important(standing: Standing, number: int) -> list[Row]:
    """So many rows, by number: the best, the running ones, a few that failed or wait, then the last that ended."""
    if len(standing.rows) <= number:
        return list(standing.rows)
    best = [row for row in standing.rows if row.number == standing.best]
    first = {state: [row for row in standing.rows if row.state == state] for state in FIRST}
    few = [row for state in FIRST for row in (first[state] if state == "running" else first[state][: -FEW - 1 : -1])]
    ended = [row for row in reversed(standing.rows) if row.state not in FIRST]
    others = [row for state in FIRST for row in reversed(first[state])]
    chosen = dict.fromkeys(row.number for row in (*best, *few, *ended, *others))
    numbers = set(list(chosen)[:number])
    return [row for row in standing.rows if row.number in numbers]


def rest(rows: Sequence[Row]) -> str:
    """How many trials are not shown, and how they stand."""
    states = Counter("done" if row.state == "complete" else row.state for row in rows)
    return "… " + ", ".join(f"{number} more {state}" for state, number in states.most_common())


def bar(standing: Standing, width: int) -> Text:
    """How many trials are done, a bar, and the time that is left: one line."""
    states = Counter(row.state for row in standing.rows)
    done = states["complete"] + states["pruned"]
    others = [f"{states[state]} {state}" for state in FIRST if states[state]]
    left = f"{duration(standing.left_s)} left" if standing.left_s is not None and done < standing.target else ""
    for counts in (", ".join([f"{done} of {standing.target} trials", *others]), f"{done} of {standing.target} trials"):
        room = width - cell_len(counts) - cell_len(left) - 4
        if room >= BAR[0]:
            break
    line = Text(counts, "bold")
    cells = min(BAR[1], room)
    if cells > 0:
        part = sum(worth(row, standing.iterations) for row in standing.rows) / max(1, standing.target)
        full = min(cells, int(cells * part))
        line.append("  ").append("#" * full, STYLES["complete"]).append("-" * (cells - full), "dim")
    line.append(f"  {left}" if left else "")
    return cut(line, width)


def worth(row: Row, iterations: int) -> float:
    """Work done on a trial, in trials."""
    return {"complete": 1.0, "pruned": 1.0, "fail": 0.0}.get(row.state, row.progress.step / max(1, iterations))


def errors(standing: Standing, width: int) -> list[Text]:
    """What failed trials say, and where one log of each kind of error lies."""
    kinds: dict[str, list[Row]] = {}
    for row in standing.rows:
        if row.error and row.state in ("fail", DAMAGED):
            kinds.setdefault(note(row), []).append(row)
    lines = []
    for said, rows in sorted(kinds.items(), key=lambda kind: -kind[1][-1].number)[:MOST_ERRORS]:
        numbers = [str(row.number) for row in rows]
        which = f"trial {numbers[0]}" if len(rows) == 1 else f"{len(rows)} trials ({', '.join(numbers[-3:])})"
        what = "is damaged" if rows[-1].state == DAMAGED else "failed"
        lines.append(cut(Text(f"{which} {what}: {said}", STYLES[rows[-1].state]), width))
        log = standing.log_of(rows[-1])
        lines += [_path(log, width)] if log else []
    if len(kinds) > MOST_ERRORS:
        lines.append(cut(Text(f"… and {len(kinds) - MOST_ERRORS} other errors", "dim"), width))
    return lines


def _path(log: str, width: int) -> Text:
    """A path of which, where it has no room, the end is shown."""
    room = width - len("  log: ")
    return Text("  log: " + (log if cell_len(log) <= room else "…" + log[-(room - 1) :]))
