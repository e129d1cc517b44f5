"""What the runs of all arms say: a row a claim, with the interval of its difference over paired seeds."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from rich import box
from rich.table import Table

from analysis.intervals import half_width, mean_and_interval, verdict
from benchmarks.claims.arms import Row
from fsr.score_names import CAM_MIOU, SEG_MIOU, title_of
from fsr.setting_text import settings_text

SCORES = (SEG_MIOU, CAM_MIOU)
VERDICTS = {"better": "holds", "worse": "fails"}
Results = Mapping[str, Mapping[int, Mapping[str, Any]]]
"""What each run came to, by arm and seed."""


def compared(row: Row, score: str, results: Results, seeds: Sequence[int], rows: int) -> dict[str, Any]:
    """The mean difference of a row's two arms over the seeds that both have, and its 95 % intervals.

    `half_width` is that of this row alone; all rows hold at once with `half_width_together`, by which it is judged.
    """
    pairs = {
        seed: (results[row.arm][seed][score], results[row.counterpart][seed][score])
        for seed in seeds
        if seed in results.get(row.arm, {}) and seed in results.get(row.counterpart, {})
    }
    differences = {seed: ours - theirs for seed, (ours, theirs) in pairs.items() if None not in (ours, theirs)}
    values = list(differences.values())
    mean, together = statistics.fmean(values) if values else None, half_width(values, rows)
    alone = half_width(values)
    return {
        "difference": mean,
        "half_width": alone if len(values) > 1 else None,
        "half_width_together": together if len(values) > 1 else None,
        "verdict": "not shown" if mean is None else VERDICTS.get(verdict(mean, together), "not shown"),
        "by_seed": differences,
    }


def rows_of(rows: Sequence[Row], results: Results, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """All rows of the table, as they are written to its file."""
    return [
        {"says": row.says, "arm": row.arm, "counterpart": row.counterpart}
        | {score: compared(row, score, results, seeds, len(rows)) for score in SCORES}
        for row in rows
    ]


def drawn_rows(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The table of claims, in Markdown."""
    table = Table("claim", "arm − counterpart", "seeds", box=box.MARKDOWN)
    for score in SCORES:
        table.add_column(title_of(score))
        table.add_column("for all rows at once")
    for row in rows:
        cells = [row["says"], f"{row['arm']} − {row['counterpart']}", str(len(row[SEG_MIOU]["by_seed"]))]
        for found in (row[score] for score in SCORES):
            mean, alone, together = (found[name] for name in ("difference", "half_width", "half_width_together"))
            known = math.nan if alone is None else alone
            cells.append("–" if mean is None else mean_and_interval(mean, known, sign=True))
            cells.append(("" if together is None else f"± {together:.3f}: ") + found["verdict"])
        table.add_row(*cells)
    return table


def drawn_arms(changes: Mapping[str, Mapping[str, Any]], results: Results, seeds: Sequence[int]) -> Table:
    """Means of each arm over its seeds, in Markdown."""
    table = Table("arm", "changes", "seeds", *map(title_of, SCORES), "seconds", box=box.MARKDOWN)
    for arm, fields in changes.items():
        runs = [results[arm][seed] for seed in seeds if seed in results.get(arm, {})]
        cells = [arm, settings_text(fields), str(len(runs))]
        for score in SCORES:
            values = [run[score] for run in runs if run[score] is not None]
            cells.append(mean_and_interval(statistics.fmean(values), half_width(values)) if values else "–")
        cells.append(f"{statistics.median(run['seconds'] for run in runs):.0f}" if runs else "–")
        table.add_row(*cells)
    return table


def plot(rows: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """The differences with both intervals: thick for the row alone, thin for all rows at once."""
    figure = Figure(figsize=(11, 1.2 + 0.34 * len(rows)), layout="constrained")
    panes = figure.subplots(1, len(SCORES), sharey=True)
    places = range(len(rows) - 1, -1, -1)
    for axes, score in zip(panes, SCORES, strict=True):
        for place, row in zip(places, rows, strict=True):
            found = row[score]
            if found["difference"] is None:
                continue
            colour = {"holds": "#2f6db5", "fails": "#b5372f"}.get(found["verdict"], "#9aa1ab")
            for name, width in (("half_width_together", 1), ("half_width", 3)):
                axes.errorbar(found["difference"], place, xerr=found[name], fmt="o", color=colour, elinewidth=width)
        axes.axvline(0, color="#c8741a", linewidth=1, linestyle=":")
        axes.set_xlabel(f"difference in {title_of(score)}")
        axes.grid(axis="x", linewidth=0.3)
    panes[0].set_yticks(list(places), [row["says"] for row in rows])
    figure.suptitle(title, fontsize=10)
    return figure
