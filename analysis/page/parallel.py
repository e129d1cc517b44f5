"""Parallel coordinates of a search."""

import math
from itertools import pairwise
from typing import Any

import pandas as pd

from analysis.page.chart import FIRST, HOVER, INK, QUIET, SECOND, Chart, Named, Spec, chart, segments, tooltip, values
from analysis.ranking import parameters
from analysis.tables import Tables
from fsr.score_names import title_of
from fsr.setting_text import setting_text

LONGEST_TITLE = 150  # pixels of an axis' name


def parallel_chart(tables: Tables, study: str, ranked: pd.DataFrame, metric: str, names: Named) -> Chart | None:
    """Parallel coordinates: a line a trial of the search through its values and its score. None for no parameters."""
    columns = parameters(ranked)
    shown = ranked[ranked["searched"].notna()].sort_values("searched", ascending=False)
    if not columns or len(shown) < 2:
        return None
    axes = [name.removeprefix("param/") for name in columns] + [title_of(metric)]
    positions, ticks = [], []
    for index, column in enumerate([*columns, "searched"]):
        distribution = (
            {"kind": "float", "log": False} if column == "searched" else tables.distribution(study, axes[index])
        )
        places, labels = _along(shown[column], distribution)
        positions.append(places)
        ticks += [{"axis": axes[index], "place": place, "label": label} for place, label in labels]
    rows = []
    for rank, (_, row) in enumerate(shown.iterrows(), 1):
        told = names.row(row["trial"]) | {"rank": rank, "score": f"{row['searched']:.3f}"}
        for index, axis in enumerate(axes):
            place = positions[index][row.name]
            if not math.isnan(place):
                rows.append(told | {"axis": axis, "index": index, "place": place})
    best = max(1, round(len(shown) / 5))
    slider = {"input": "range", "min": 1, "max": len(shown), "step": 1, "name": "best trials in colour"}
    x: Spec = {"field": "axis", "type": "nominal", "sort": axes, "title": None, "scale": {"padding": 0.3}}
    x["axis"] = {
        "orient": "top",
        "labelAngle": 0,
        "grid": True,
        "domain": False,
        "ticks": False,
        "labelLimit": LONGEST_TITLE,
    }
    x["axis"] |= {"labelOverlap": False, "labelFontWeight": "bold", "labelPadding": 14}
    y = {"field": "place", "type": "quantitative", "axis": None, "scale": {"domain": [0, 1]}}
    line = {"x": x, "y": y, "detail": {"field": "trial"}, "order": {"field": "index"}}
    pointed = {"param": "hover", "empty": False}
    layers: list[Spec] = [
        {
            "params": [HOVER],
            "mark": {"type": "line"},
            "encoding": line
            | {
                "color": {
                    "condition": [pointed | {"value": SECOND}, {"test": "datum.rank <= best", "value": FIRST}],
                    "value": QUIET,
                },
                "opacity": {
                    "condition": [pointed | {"value": 1}, {"test": "datum.rank <= best", "value": 0.9}],
                    "value": 0.3,
                },
                "strokeWidth": {
                    "condition": [pointed | {"value": 3}, {"test": "datum.rank <= best", "value": 2}],
                    "value": 1,
                },
            },
        },
        *(
            {
                "data": values(ticks),
                "mark": {"type": "text", "align": "left", "dx": 5, "fontSize": 11} | look,
                "encoding": {"x": x, "y": y, "text": {"field": "label"}},
            }
            for look in ({"stroke": "var(--card)", "strokeWidth": 4, "opacity": 0.85}, {"color": INK})
        ),
        segments(x, y, "index", tooltip(("score", title_of(metric)), ("rank", "rank in the search"))),
    ]
    top = shown.head(best)
    spans = []
    for column in columns:
        if pd.api.types.is_numeric_dtype(top[column]) and top[column].dtype != bool:
            low, high = setting_text(top[column].min()), setting_text(top[column].max())
            spans.append(f"{column.removeprefix('param/')} {low} to {high}")
        else:
            spans.append(
                f"{column.removeprefix('param/')} {', '.join(map(setting_text, top[column].dropna().unique()))}"
            )
    says = f"The best {best} of {len(shown)} trials of the search have {'; '.join(spans)}; {title_of(metric)} "
    says += f"{top['searched'].min():.3f} to {top['searched'].max():.3f}, all: {shown['searched'].min():.3f} and more."
    params = [{"name": "best", "value": best, "bind": slider}]
    return chart(
        "Settings and scores, a line a trial",
        layers,
        says,
        data=values(rows),
        height=280,
        params=params,
        least=least_width(axes),
        padding={"left": 5, "top": 5, "right": 45, "bottom": 5},
    )


def least_width(axes: list[str]) -> int:
    """Pixels in which the names of no two axes beside each other touch."""
    titles = [min(LONGEST_TITLE, 8 * len(axis)) for axis in axes]
    step = max((one + other) / 2 + 12 for one, other in pairwise(titles))
    return round(max(100, step) * (len(axes) + 0.3)) + 50


def _along(
    column: "pd.Series[Any]", distribution: dict[str, Any]
) -> tuple["pd.Series[float]", list[tuple[float, str]]]:
    """Where values lie on an axis from 0 to 1, and what stands at its ticks."""
    if distribution["kind"] == "categorical" or not pd.api.types.is_numeric_dtype(column):
        numeric = pd.api.types.is_numeric_dtype(column)
        choices = sorted(column.dropna().unique()) if numeric else list(dict.fromkeys(column.dropna()))
        places = {choice: 0.5 if len(choices) == 1 else n / (len(choices) - 1) for n, choice in enumerate(choices)}
        return column.map(places).astype(float), [(place, setting_text(choice)) for choice, place in places.items()]
    numbers = column.astype(float)
    scaled = numbers.map(math.log) if distribution["log"] else numbers
    low, high = scaled.min(), scaled.max()
    if low == high:
        return scaled.mul(0).add(0.5), [(0.5, setting_text(float(numbers.iloc[0])))]
    middle = math.exp((low + high) / 2) if distribution["log"] else (low + high) / 2
    ends = [(0.0, f"{numbers.min():.3g}"), (0.5, f"{middle:.3g}"), (1.0, f"{numbers.max():.3g}")]
    return scaled.sub(low).div(high - low), ends
