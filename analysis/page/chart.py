"""A plot of the study page: a Vega-Lite specification, and what it shows in words and numbers.

The page draws a specification twice: as an SVG for who has no JavaScript, and live. Colours are names of the page's CSS
variables, so that one drawing suits light and dark. No text of a study becomes an expression or a field's name.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Spec = dict[str, Any]
Row = dict[str, Any]

FIRST, SECOND, QUIET, INK = "var(--first)", "var(--second)", "var(--quiet)", "var(--ink)"
GOOD, BAD = "var(--good)", "var(--bad)"
WIDE, NARROW = 680, 330  # pixels of a drawing without JavaScript; with it, a plot is as wide as its place
TICKS = "width < 450 ? 4 : 8"
HIT = 9  # pixels around a thin line that belong to it under the pointer
HOVER = {"name": "hover", "select": {"type": "point", "on": "pointerover", "clear": "pointerout", "fields": ["trial"]}}


@dataclass(frozen=True)
class Chart:
    """A plot."""

    title: str
    spec: Spec
    says: str
    """Its alternative text: what it shows, with the numbers."""
    width: int = WIDE
    """Of its drawing without JavaScript, in pixels."""
    least: int = 0
    """Pixels below which it is scrolled, not squeezed."""
    note: str = ""
    """What one must know to read it."""

    @property
    def chooses(self) -> bool:
        """Whether it shows the trials that the reader chooses."""
        return any(parameter["name"] == "chosen" for parameter in self.spec.get("params", ()))

    def still(self) -> Spec:
        """The specification of a drawing that nobody points at: of a fixed width, without what a pointer finds."""
        layers = [layer for layer in self.spec["layer"] if layer.get("name") != "pointer"]
        # The fonts of the machine that shows it are wider, perhaps, than those it is drawn with.
        return self.spec | {
            "width": self.width,
            "layer": layers,
            "padding": {"left": 22, "top": 5, "right": 45, "bottom": 5},
        }


def chart(
    title: str, layers: list[Spec], says: str, width: int = WIDE, note: str = "", least: int = 0, **more: Any
) -> Chart:
    """A plot of layers."""
    axis: Spec = {"labelColor": INK, "titleColor": INK, "gridColor": "var(--line)", "domainColor": "var(--line)"}
    axis |= {"tickColor": "var(--line)", "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal"}
    legend: Spec = {"labelColor": INK, "titleColor": INK, "labelFontSize": 12, "orient": "top", "title": None}
    config = {
        "font": "Arial, Helvetica, sans-serif",
        "background": None,
        "aria": False,  # of each mark: a plot has one text as a whole
        "view": {"stroke": None},
        "axis": axis | {"labelLimit": 170, "titlePadding": 8, "labelSeparation": 6},
        "legend": legend | {"labelLimit": 300, "symbolStrokeWidth": 2},
        "point": {"size": 55, "strokeWidth": 1.5, "opacity": 1},
    }
    spec = {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",  # a name: nothing is fetched
        "width": "container",
        "height": 240,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "config": config,
        "layer": layers,
    }
    return Chart(title, spec | more, says, width, least, note)


def values(rows: list[Row]) -> Spec:
    """Rows as a specification has them: what is not a number is null."""
    return {"values": [{name: plain(value) for name, value in row.items()} for row in rows]}


def plain(value: Any) -> Any:
    """A value as JSON has it: numbers of five digits, null for one that is not finite."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value


def axis_of(name: str, title: str, **more: Any) -> Spec:
    """An axis of numbers that need not begin at zero. Its labels are the numbers, where all are equal, too."""
    ticks = {"tickCount": {"expr": TICKS}, "labelOverlap": True, "format": ".5~g"}
    return {"field": name, "type": "quantitative", "title": title, "scale": {"zero": False}, "axis": ticks} | more


def tooltip(*more: tuple[str, str]) -> list[Spec]:
    """What the pointer finds: which trial, its setting, and more fields with their titles."""
    fields = (("called", "trial"), ("setting", "setting"), *more)
    return [{"field": name, "title": title, "type": "nominal"} for name, title in fields]


def segments(x: Spec, y: Spec, order: str, found: list[Spec], *transform: Spec) -> Spec:
    """A layer of each line's segments, unseen and wide: a line itself answers the pointer only at its points."""
    following = [{"op": "lead", "field": axis["field"], "as": f"next_{axis['field']}"} for axis in (x, y)]
    joined = {"window": following, "groupby": ["trial"], "sort": [{"field": order}]}
    ends = {f"{name}2": {"field": f"next_{axis['field']}"} for name, axis in (("x", x), ("y", y))}
    return {
        "name": "pointer",
        "transform": [*transform, joined, {"filter": f"isValid(datum.next_{y['field']})"}],
        "mark": {"type": "rule", "strokeWidth": HIT, "opacity": 0},
        "encoding": {"x": x, "y": y, "tooltip": found} | ends,
    }


class Named:
    """The trials of a study by what they are called on the page."""

    def __init__(self, names: Mapping[int, str], changes: Mapping[int, str]) -> None:
        """`names` are those of `setting_names`: trial 7: w_aff 0.75; `changes` what each changes most of trial 0's."""
        self._names = names
        self._changes = changes

    def row(self, trial: int) -> Row:
        """Number, name and setting of a trial, as each row of a plot's data has them."""
        called, _, setting = self._names.get(trial, f"trial {trial}").partition(": ")
        return {"trial": int(trial), "called": called, "setting": setting}

    def short(self, trial: int, letters: int = 26) -> str:
        """A name that an axis or a legend has room for: what is changed most comes first."""
        changes = self._changes.get(trial)
        text = f"{trial}: {changes}" if changes else f"trial {trial}"
        return text if len(text) <= letters else text[: letters - 1].rstrip() + "…"
