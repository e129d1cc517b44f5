"""Learning curves."""

from analysis.page.chart import BAD, FIRST, GOOD, HOVER, SECOND, Chart, Named, axis_of, chart, segments, tooltip, values
from analysis.tables import Tables
from fsr.score_names import title_of

STATES = {"complete": FIRST, "pruned": SECOND, "fail": BAD, "running": GOOD, "damaged": BAD}


def learning_chart(tables: Tables, study: str, metric: str, names: Named) -> Chart | None:
    """The score by step, a line a trial; colours show what became of it. None if no trial was evaluated."""
    trials = tables.trials[tables.trials["study"] == study].set_index("trial")
    curves = tables.curves[tables.curves["study"] == study]
    curves = curves[["trial", "step", metric]].dropna() if metric in curves else curves.head(0)
    if curves.empty:
        return None
    states = trials["state"].astype(str)
    told = [names.row(trial) | {"state": states[trial]} for trial in curves["trial"].unique()]
    rows = [
        {"trial": trial, "step": step, "score": score}
        for trial, step, score in zip(curves["trial"], curves["step"], curves[metric], strict=True)
    ]
    last = curves.groupby("trial")[metric].last()
    for row in told:
        row["last"] = f"{last[row['trial']]:.3f}"
    there = [state for state in STATES if state in {row["state"] for row in told}]
    colour = {"field": "state", "type": "nominal", "legend": {}}
    colour["scale"] = {"domain": there, "range": [STATES[state] for state in there]}
    steps = axis_of("step", "step")
    steps["axis"] |= {"tickMinStep": 1}
    line = {"x": steps, "y": axis_of("score", title_of(metric)), "detail": {"field": "trial"}}
    pointed = {"param": "hover", "empty": False}
    layers = [
        {
            "params": [HOVER],
            "mark": {"type": "line"},
            "encoding": line
            | {
                "color": colour,
                "opacity": {"condition": pointed | {"value": 1}, "value": 0.55},
                "strokeWidth": {"condition": pointed | {"value": 3.5}, "value": 1.3},
            },
        },
        segments(line["x"], line["y"], "step", tooltip(("state", "state"), ("last", f"last {title_of(metric)}"))),
    ]
    counts = {state: [row["trial"] for row in told if row["state"] == state] for state in there}
    parts = [
        f"{len(numbers)} {state}, at last {last[numbers].min():.3f} to {last[numbers].max():.3f}"
        + (f", median {last[numbers].median():.3f}" if len(numbers) > 2 else "")
        for state, numbers in counts.items()
    ]
    says = f"{title_of(metric)} of {len(told)} trials up to step {curves['step'].max()}: {'; '.join(parts)}."
    with_names = [{"lookup": "trial", "from": {"data": values(told), "key": "trial", "fields": [*told[0]][1:]}}]
    return chart(
        f"{title_of(metric)[:1].upper()}{title_of(metric)[1:]} by step",
        layers,
        says,
        data=values(rows),
        transform=with_names,
    )
