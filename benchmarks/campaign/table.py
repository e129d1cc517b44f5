"""Campaigns side by side: one row for each that was asked for, means over the same seeds."""

import math
from collections.abc import Sequence

import numpy as np
from rich import box
from rich.table import Table

from analysis.intervals import half_width
from benchmarks.campaign.measures import Measures

# The heading, what it shows, and its digits.
COLUMNS = (
    ("goodput", "goodput", ".3f"),
    ("makespan h", "makespan_h", ".2f"),
    ("GPU-h", "occupied", ".1f"),
    ("useful", "useful", ".1f"),
    ("repeated", "repeated", ".1f"),
    ("lost", "lost", ".1f"),
    ("idle", "idle", ".1f"),
    ("in queue", "waiting", ".1f"),
    ("finished", "finished", ".0f"),
    ("pruned", "pruned", ".0f"),
    ("failed", "failed", ".0f"),
    ("best", "best", ".3f"),
)
COMPARED = (("makespan h", "makespan_h", "+.2f"), ("GPU-h", "occupied", "+.1f"), ("best", "best", "+.3f"))


def drawn(rows: Sequence[tuple[str, Sequence[Measures]]]) -> Table:
    """A row each, of campaigns that differ in their seeds alone."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for heading, _, _ in COLUMNS:
        table.add_column(heading, justify="right")
    for name, measures in rows:
        table.add_row(name, *(_mean(measures, what, digits) for _, what, digits in COLUMNS))
    return table


def differences(rows: Sequence[tuple[str, Sequence[Measures]]]) -> list[str]:
    """What each later row has more than the first one: means of the differences seed by seed, with 95 % intervals."""
    first, sentences = rows[0], []
    for name, measures in rows[1:]:
        parts = []
        for heading, what, digits in COMPARED:
            pairs = zip(first[1], measures, strict=True)
            values = [_value(other, what) - _value(one, what) for one, other in pairs]
            width = half_width(values)
            interval = "" if math.isnan(width) else f" ± {width:{digits.lstrip('+')}}"
            parts.append(f"{heading} {np.mean(values):{digits}}{interval}")
        sentences.append(f"{name} against {first[0]}: {', '.join(parts)}")
    return sentences


def ends(measures: Measures) -> str:
    """How the attempts of a campaign ended."""
    return ", ".join(f"{count} {cause}" for cause, count in measures.ends.items())


def _mean(measures: Sequence[Measures], what: str, digits: str) -> str:
    mean = float(np.mean([_value(one, what) for one in measures]))
    return "" if math.isnan(mean) else f"{mean:{digits}}"


def _value(measures: Measures, what: str) -> float:
    value = getattr(measures, what)
    return math.nan if value is None else float(value)
