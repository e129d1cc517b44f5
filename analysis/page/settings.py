"""The plots of a ranking: scores of the settings, and their differences from trial 0's."""

import math
from typing import Any

import pandas as pd

from analysis.intervals import mean_and_interval
from analysis.page.chart import BAD, FIRST, GOOD, INK, QUIET, Chart, Named, Row, Spec, axis_of, chart, tooltip, values
from fsr.score_names import title_of

VERDICTS = {"better": GOOD, "not significant": QUIET, "worse": BAD, "": QUIET}
SHOWN_SETTINGS = 12  # the table has all


def ranking_charts(ranked: pd.DataFrame, metric: str, names: Named, baseline: str) -> list[Chart]:
    """The best settings of a `ranking`: scores, and where there are fresh seeds the differences from trial 0's."""
    shown = ranked.head(SHOWN_SETTINGS)
    if 0 in set(ranked["trial"]) - set(shown["trial"]):
        shown = pd.concat([shown, ranked[ranked["trial"] == 0]])
    rows = []
    for place, (_, row) in enumerate(shown.iterrows()):
        trial = int(row["trial"])
        told = names.row(trial) | {"place": place, "name": names.short(trial), "seeds": row["seeds"]}
        told |= {"searched": row["searched"], "searched_text": mean_and_interval(row["searched"], math.nan)}
        rows.append(told | interval(row, "mean", "half_width") | {"pairs": row["pairs"], "verdict": row["verdict"]})
        rows[-1] |= {f"d_{n}": v for n, v in interval(row, "difference", "difference_half_width", sign=True).items()}
    y = {
        "field": "name",
        "type": "nominal",
        "title": None,
        "sort": {"field": "place"},
        "axis": {"grid": True, "labelLimit": 190},
    }
    charts = [_scores(ranked, rows, metric, y)]
    compared = [row for row in rows if row["d_text"]]
    if compared:
        charts.append(_differences(compared, metric, baseline, y))
    return charts


def _scores(ranked: pd.DataFrame, rows: list[Row], metric: str, y: Spec) -> Chart:
    title = title_of(metric)
    found = {
        "y": y,
        "tooltip": tooltip(("searched_text", "in the search"), ("text", "fresh seeds"), ("seeds", "seeds")),
    }
    hollow = {"type": "point", "filled": False, "color": QUIET}
    layers: list[Spec] = [{"mark": hollow, "encoding": found | {"x": axis_of("searched", title)}}]
    note = "Hollow: the search, one seed each."
    if ranked["seeds"].any():
        ends, mean = {"x": axis_of("low", title), "x2": {"field": "high"}}, {"x": axis_of("mean", title)}
        layers += [
            {"mark": {"type": "rule", "strokeWidth": 2, "color": FIRST}, "encoding": found | ends},
            {"mark": {"type": "point", "filled": True, "color": FIRST}, "encoding": found | mean},
        ]
        note += " Full: means over fresh seeds with 95 % intervals."
    if len(rows) < len(ranked):
        note += f" {len(rows)} of {len(ranked)} settings; the table has all."
    means = [f"{row['called']} {row['text']} over {row['seeds']} seeds" for row in rows if row["seeds"]]
    worst, best = ranked["searched"].min(), ranked["searched"].max()
    says = f"{title} of {len(ranked)} settings in the search: from {worst:.3f} to {best:.3f}."
    says += f" Over fresh seeds: {'; '.join(means)}." if means else " None has fresh seeds."
    heading = f"{title[:1].upper()}{title[1:]} of the settings"
    return chart(heading, layers, says, note=note, data=values(rows), height={"step": 24})


def _differences(rows: list[Row], metric: str, baseline: str, y: Spec) -> Chart:
    title = "difference"
    colour: Spec = {"field": "verdict", "type": "nominal", "legend": None}
    colour["scale"] = {"domain": [*VERDICTS], "range": [*VERDICTS.values()]}
    found = {
        "y": y,
        "color": colour,
        "tooltip": tooltip(("d_text", "difference"), ("pairs", "seeds in pairs"), ("verdict", "verdict")),
    }
    ends, mean = {"x": axis_of("d_low", title), "x2": {"field": "d_high"}}, {"x": axis_of("d_mean", title)}
    layers: list[Spec] = [
        {"mark": {"type": "rule", "color": INK, "strokeDash": [3, 3]}, "encoding": {"x": {"datum": 0}}},
        {"mark": {"type": "rule", "strokeWidth": 2}, "encoding": found | ends},
        {"mark": {"type": "point", "filled": True}, "encoding": found | mean},
    ]
    parts = (f"{row['called']} {row['d_text']} ({row['verdict'] or 'no interval'})" for row in rows)
    says = f"Difference in {title_of(metric)} from {baseline} over equal seeds: {'; '.join(parts)}."
    note = "Seed by seed; 95 % for all of them at once. An interval that crosses the dashed line shows no difference."
    return chart(f"Differences from {baseline}", layers, says, note=note, data=values(rows), height={"step": 24})


def interval(row: "pd.Series[Any]", mean: str, width: str, sign: bool = False) -> Row:
    """Mean, ends and text of an interval; only the mean where one seed gives none."""
    middle, half = row[mean], row[width]
    return {"mean": middle, "low": middle - half, "high": middle + half, "text": mean_and_interval(middle, half, sign)}
