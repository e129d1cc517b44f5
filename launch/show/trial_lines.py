"""The trials of a study as lines, one each, that fit a terminal of any width: pure functions of rows."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from fsr.score_names import CAM_MIOU, SEG_MIOU
from fsr.setting_text import setting_text
from fsr.shown import in_one_line
from launch.show.table import STYLES, Row, counted, duration, left, score

GAP = 2  # cells between columns
LEAST_NOTE = 10  # cells of the last column, which takes what is left
WIDE = 100  # cells of a terminal with room for what helps, but need not be there
LONGEST = {False: 12, True: 24}  # cells of a setting's value, by whether the terminal is wide
FEW = 5  # cells of a name that is not shortened


@dataclass
class Column:
    """A column of one cell a row. What may be left out goes first where `keep` is lowest."""

    title: str
    cells: list[str]
    keep: float = 100.0
    right: bool = True
    legend: str = ""
    """What the title stands for, if it is short for something."""
    width: int = field(init=False)

    def __post_init__(self) -> None:
        self.width = max([cell_len(self.title), *map(cell_len, self.cells)])


def trial_lines(rows: Sequence[Row], iterations: int, width: int, best: int | None = None) -> list[Text]:
    """A header, a line for each row, and what the shortened names in the header stand for; none is wider than `width`.

    Args:
        rows: the trials to be shown.
        iterations: steps of a whole run.
        width: cells of the terminal.
        best: number of the best trial, which is set off.
    """
    columns = columns_of(rows, iterations, width >= WIDE, short=False)
    if needed(columns) > width:
        columns = columns_of(rows, iterations, width >= WIDE, short=True)
    columns, hidden = fitting(columns, width)
    used = sum(column.width + GAP for column in columns[:-1])
    columns[-1].width = max(0, min(columns[-1].width, width - used))
    lines = [line_of([column.title for column in columns], columns, "bold", "bold")]
    for index, row in enumerate(rows):
        cells = [column.cells[index] for column in columns]
        lines.append(line_of(cells, columns, STYLES.get(row.state, "dim"), "bold" if row.number == best else ""))
    return [*(cut(line, width) for line in lines), *legend(columns, hidden, width)]


def line_of(cells: Sequence[str], columns: Sequence[Column], state: str, style: str) -> Text:
    """One line of the table; the state has a style of its own."""
    line = Text(style=style)
    for cell, column in zip(cells, columns, strict=True):
        shown = _cut(cell, column.width)
        pad = " " * (column.width - cell_len(shown))
        line.append(pad + shown if column.right else shown + pad, state if column is columns[1] else "")
        line.append(" " * GAP)
    line.rstrip()
    return line


def columns_of(rows: Sequence[Row], iterations: int, wide: bool, short: bool) -> list[Column]:
    """All columns that could be shown and have anything in them, from left to right; names as they are, or `short`."""
    names = list(dict.fromkeys(name for row in rows for name in row.settings))
    widths = {name: _widest(rows, name, wide) for name in names}
    shorts = shortened(names, widths) if short else {name: name for name in names}
    settings = [
        Column(
            shorts[name],
            [_setting(row, name, wide) for row in rows],
            keep=50 - index / len(names),
            legend="" if shorts[name] == name else name,
        )
        for index, name in enumerate(names)
    ]
    steps = [
        f"{row.progress.step}/{iterations}" if wide else f"{100 * row.progress.step // max(1, iterations)} %"
        for row in rows
    ]
    rates = [f"{row.progress.steps_per_s:.2f}" if row.progress.steps_per_s else "" for row in rows]
    columns = [
        Column("trial", [str(row.number) for row in rows]),
        Column("state", [row.state for row in rows], right=False),
        *settings,
        Column("step" if wide else "done", steps),
        Column("seg mIoU" if wide else "seg", [score(row, SEG_MIOU) for row in rows], keep=90),
        Column("cam mIoU" if wide else "cam", [score(row, CAM_MIOU) for row in rows], keep=48),
        *([Column("steps/s", rates, keep=10)] if wide else []),
        Column("time", [duration(row.seconds) for row in rows], keep=46),
        Column("left", [duration(left(row, iterations)) for row in rows], keep=80),
        Column("", [note(row) for row in rows], right=False),
    ]
    return [column for column in columns if any(column.cells) or not column.title or column.keep == 100.0]


def note(row: Row) -> str:
    """Where a trial runs, or what became of it: its error, and the causes of its ends where they are not plain."""
    if row.error:
        return in_one_line(" ".join(row.error.split()))
    ends = "" if row.causes in (("finished",), ("pruned",)) else counted(row.causes)
    return ", ".join(part for part in (f"on {row.node}" if row.node and row.state == "running" else "", ends) if part)


def shortened(names: Sequence[str], widths: dict[str, int]) -> dict[str, str]:
    """The names as short as their values are wide, each another one: the parts' first letters, then a letter more."""
    short: dict[str, str] = {}
    for name in names:
        room = max(FEW, widths[name])
        parts = [part for part in name.replace("-", "_").split("_") if part]
        tries = [name] if cell_len(name) <= room else []
        tries += ["_".join(part[:count] for part in parts) for count in (3, 2, 1)]
        tries += [name[:room], *(f"{name[: room - 1]}{number}" for number in range(2, len(names) + 2))]
        taken = {*short.values(), "trial", "state", "step", "done", "seg", "cam", "time", "left", ""}
        short[name] = next((one for one in tries if cell_len(one) <= room and one not in taken), name)
    return short


def fitting(columns: list[Column], width: int) -> tuple[list[Column], list[str]]:
    """The columns that have room, and the names of the settings that have none."""
    kept, hidden = list(columns), []

    while needed(kept) > width and any(column.keep < 100 for column in kept):
        least = min(kept, key=lambda column: column.keep)
        kept.remove(least)
        if 49 <= least.keep <= 50:
            hidden.append(least.legend or least.title)
    return kept, hidden[::-1]


def needed(columns: Sequence[Column]) -> int:
    """Cells that they need, the last at least."""
    return sum(column.width + GAP for column in columns[:-1]) + min(LEAST_NOTE, columns[-1].width)


def legend(columns: Sequence[Column], hidden: Sequence[str], width: int) -> list[Text]:
    """What the short names stand for, and what has no room."""
    parts = [f"{column.title} = {column.legend}" for column in columns if column.legend]
    if hidden:
        parts.append(f"no room for {', '.join(hidden)}")
    return wrapped(", ".join(parts), width, "dim") if parts else []


def wrapped(text: str, width: int, style: str = "") -> list[Text]:
    """A text in lines of at most `width` cells, broken between words where that is possible."""
    lines, line = [], ""
    for word in in_one_line(text).split(" "):
        if line and cell_len(line) + 1 + cell_len(word) > width:
            lines.append(line)
            line = "  " + word
        else:
            line = f"{line} {word}" if line else word
        while cell_len(line) > width:
            head = set_cell_size(line, width).rstrip(" ")
            lines.append(head)
            line = "  " + line[len(head) :]
    return [Text(one, style) for one in [*lines, line]]


def cut(line: Text, width: int) -> Text:
    """A line of at most `width` cells; one that is longer ends with an ellipsis."""
    line.truncate(width, overflow="ellipsis")
    return line


def _cut(cell: str, width: int) -> str:
    return cell if cell_len(cell) <= width else set_cell_size(cell, max(0, width - 1)).rstrip() + "…"


def _setting(row: Row, name: str, wide: bool) -> str:
    """The value of a setting; of a long one the beginning and the end, which mostly tell it from others."""
    text = in_one_line(setting_text(row.settings[name])) if name in row.settings else ""
    longest = LONGEST[wide]
    if cell_len(text) <= longest:
        return text
    half = (longest - 1) // 2
    return f"{text[: longest - 1 - half]}…{text[-half:]}"


def _widest(rows: Sequence[Row], name: str, wide: bool) -> int:
    return max((cell_len(_setting(row, name, wide)) for row in rows), default=0)
