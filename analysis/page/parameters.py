"""The plots of what each parameter did to the score."""

import math
from typing import Any

import numpy as np
import optuna
import pandas as pd

from analysis.intervals import mean_and_interval
from analysis.page.chart import FIRST, NARROW, QUIET, SECOND, Chart, Named, Spec, axis_of, chart, tooltip, values
from analysis.page.settings import interval
from analysis.ranking import parameters
from analysis.tables import Tables
from fsr.score_names import title_of
from fsr.setting_text import setting_text


def effect_charts(tables: Tables, study: str, ranked: pd.DataFrame, metric: str, names: Named) -> list[Chart]:
    """What each parameter did, one plot each: the search's trials, and the repeated settings with intervals."""
    return [_effect(tables, study, ranked, column, metric, names) for column in parameters(ranked)]


def _effect(tables: Tables, study: str, ranked: pd.DataFrame, column: str, metric: str, names: Named) -> Chart:
    name = column.removeprefix("param/")
    there = ranked[ranked[column].notna()]
    rows = []
    for _, row in there.iterrows():
        told = names.row(row["trial"]) | {
            "value": _value(row[column]),
            "searched": row["searched"],
            "zero": row["trial"] == 0,
        }
        rows.append(
            told | interval(row, "mean", "half_width") | {"searched_text": mean_and_interval(row["searched"], math.nan)}
        )
    kind = tables.distribution(study, name)
    x = {"field": "value", "title": name} | scale_of(kind, there[column])
    y = axis_of("searched", title_of(metric))
    found = {"tooltip": tooltip(("searched_text", "in the search"), ("text", "fresh seeds"))}
    layers: list[Spec] = [
        {
            "transform": [{"filter": "datum.zero"}],
            "mark": {"type": "rule", "color": SECOND, "strokeDash": [3, 3]},
            "encoding": {"x": x},
        },
        {"mark": {"type": "point", "filled": False, "color": QUIET}, "encoding": {"x": x, "y": y} | found},
    ]
    if ranked["seeds"].any():
        ends = {"x": x, "y": axis_of("low", title_of(metric)), "y2": {"field": "high"}}
        mean = {"x": x, "y": axis_of("mean", title_of(metric))}
        layers += [
            {"mark": {"type": "rule", "strokeWidth": 2, "color": FIRST}, "encoding": ends | found},
            {"mark": {"type": "point", "filled": True, "color": FIRST}, "encoding": mean | found},
        ]
    return chart(name, layers, _effect_text(there, column, metric), NARROW, data=values(rows), height=200)


def _effect_text(there: pd.DataFrame, column: str, metric: str) -> str:
    """Between which values the parameter was tried, and how the score went with it."""
    name, scores = column.removeprefix("param/"), there["searched"]
    if pd.api.types.is_numeric_dtype(there[column]) and there[column].nunique() > 2:
        low, high = (setting_text(value) for value in (there[column].min(), there[column].max()))
        r = there[column].corr(scores, method="spearman")
        rank = "" if pd.isna(r) else f"; rank correlation with {title_of(metric)} {r:+.2f} in the search"
        return f"{name} from {low} to {high} in {len(there)} trials{rank}."
    means = there.groupby(column, observed=True)["searched"].agg(["mean", "size"])
    parts = (f"{setting_text(value)} {row['mean']:.3f} (n = {row['size']:.0f})" for value, row in means.iterrows())
    return f"{title_of(metric)} in the search by {name}, means: {'; '.join(parts)}."


def _value(value: Any) -> Any:
    """A parameter's value as an axis has it: numbers stay numbers, all else is its text."""
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool | np.bool_)
    return value if number else setting_text(value)


def scale_of(distribution: dict[str, Any], column: "pd.Series[Any]") -> Spec:
    """The axis of a parameter, as it was searched: in steps of its choices, logarithmic, or linear."""
    if distribution["kind"] == "categorical" or not pd.api.types.is_numeric_dtype(column):
        numeric = pd.api.types.is_numeric_dtype(column) and column.dtype != bool
        return {
            "type": "ordinal",
            "sort": "ascending" if numeric else None,
            "axis": {"labelAngle": 0 if numeric else -30},
        }
    scale: Spec = {"zero": False, "padding": 8}
    if distribution["log"]:
        scale |= {"type": "log", "nice": False}
    return {"type": "quantitative", "scale": scale, "axis": {"tickCount": 4, "format": "~g", "labelOverlap": True}}


def importance_chart(search: optuna.Study) -> Chart | None:
    """How much each parameter separates the best trials of a search from the rest, by Optuna (PED-ANOVA).

    None for fewer than two parameters or finished trials, which have none.
    """
    done = search.get_trials(deepcopy=False, states=[optuna.trial.TrialState.COMPLETE])
    if len(done) < 2 or len(done[0].params) < 2 or len({trial.value for trial in done}) < 2:
        return None
    importances = optuna.importance.get_param_importances(search)
    rows = [{"name": name, "share": share, "text": f"{share:.2f}"} for name, share in importances.items()]
    encoding = {
        "y": {"field": "name", "type": "nominal", "title": None, "sort": None},
        "x": axis_of("share", "importance", scale={"domainMin": 0}, axis={"tickCount": 4}),
        "tooltip": [{"field": "name", "title": "parameter"}, {"field": "text", "title": "importance"}],
    }
    layers = [{"mark": {"type": "bar", "color": FIRST, "height": 12}, "encoding": encoding}]
    parts = ", ".join(f"{row['name']} {row['text']}" for row in rows)
    says = f"Importance in the search's {len(done)} finished trials: {parts}."
    note = "Of the search alone, one seed a setting: it mixes what a parameter did with what chance did."
    return chart("Importance", layers, says, NARROW, note, data=values(rows), height={"step": 26})
