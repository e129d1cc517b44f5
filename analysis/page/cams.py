"""The plots of the CAMs, most of them of the trials that the reader chooses."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.page.chart import (
    FIRST,
    NARROW,
    QUIET,
    Chart,
    Named,
    Spec,
    axis_of,
    chart,
    plain,
    segments,
    tooltip,
    values,
)
from analysis.tables import Tables
from fsr.score_names import CAM_MIOU, SEG_MIOU, title_of

CHOSEN = [f"var(--chosen{n})" for n in range(8)]


def chosen_parts(trials: Sequence[int]) -> Spec:
    """What lets the page choose the trials of a plot: a parameter that its script sets, and what filters by it."""
    return {
        "params": [{"name": "chosen", "value": list(map(int, trials))}],
        "transform": [{"filter": "indexof(chosen, datum.trial) >= 0"}],
    }


def _colour_of_chosen() -> Spec:
    return {
        "field": "name",
        "type": "nominal",
        "sort": {"field": "trial"},
        "scale": {"range": CHOSEN},
        "legend": {"columns": 1},
    }


def threshold_charts(tables: Tables, study: str, chosen: Sequence[int], names: Named) -> list[Chart]:
    """mIoU of the student's CAMs by background threshold, a line a chosen trial; rings at the run's own one."""
    quality = tables.cam_quality[(tables.cam_quality["study"] == study) & (tables.cam_quality["network"] == "student")]
    charts = []
    for kind, title in (("cam", "CAM"), ("aux_cam", "aux CAM")):
        rows, rings, parts = [], [], []
        for trial, curve in quality[quality["cam"] == kind].dropna(subset="miou").groupby("trial"):
            curve = curve.sort_values("threshold")
            told = names.row(trial) | {"name": names.short(trial)}
            rows += [
                {"trial": trial, "name": told["name"], "threshold": at, "miou": miou}
                for at, miou in zip(curve["threshold"], curve["miou"], strict=True)
            ]
            best = curve.loc[curve["miou"].idxmax()]
            own = curve["run_threshold"].iloc[0]
            ring = told | {"best": f"{best['miou']:.3f} at {best['threshold']:g}", "threshold": own}
            ring["miou"] = np.interp(own, curve["threshold"], curve["miou"]) if pd.notna(own) else math.nan
            ring["text"] = f"{ring['miou']:.3f} at {own:g}" if pd.notna(own) else ""
            rings.append(ring)
            if trial in chosen:
                parts.append(
                    f"{told['called']} at best {ring['best']}" + (f", {ring['text']} its own" if ring["text"] else "")
                )
        if not rows:
            continue
        at, miou = axis_of("threshold", "background threshold"), axis_of("miou", f"{title} mIoU")
        shown = chosen_parts(chosen)
        found = tooltip(("best", "best"), ("text", "at its threshold"))
        colour = {"color": _colour_of_chosen()}
        about = {
            "lookup": "trial",
            "from": {"data": values(rings), "key": "trial", "fields": ["called", "setting", "best", "text"]},
        }
        layers: list[Spec] = [
            {"mark": {"type": "line", "strokeWidth": 2}, "encoding": {"x": at, "y": miou} | colour},
            {
                "data": values(rings),
                "transform": shown["transform"],
                "mark": {"type": "point", "filled": False, "size": 90},
                "encoding": {"x": at, "y": miou, "tooltip": found} | colour,
            },
            segments(at, miou, "threshold", found, about),
        ]
        says = f"{title} mIoU by background threshold: {'; '.join(parts)}."
        note = "A ring marks the threshold that the run itself uses."
        charts.append(chart(f"{title} over thresholds", layers, says, NARROW, note, data=values(rows), **shown))
    return charts


def class_chart(tables: Tables, study: str, chosen: Sequence[int], names: Named) -> Chart | None:
    """IoU of the student's CAM by class, a point a chosen trial. None if no trial has any."""
    rows = tables.class_iou[(tables.class_iou["study"] == study) & (tables.class_iou["network"] == "student")]
    rows = rows[(rows["kind"] == "cam") & rows["iou"].notna()]
    if rows.empty:
        return None
    classes = [str(name) for name in dict.fromkeys(rows["class"])]
    data, parts = [], []
    for trial, own in rows.groupby("trial"):
        columns = {"class": [classes.index(str(name)) for name in own["class"]]}
        for name in ("iou", "false_positive", "false_negative"):
            columns[name] = [plain(round(value, 3)) for value in own[name].astype(float)]
        data.append(names.row(trial) | {"name": names.short(trial)} | columns)
        if trial in chosen:
            worst = own.loc[own["iou"].astype(float).idxmin()]
            parts.append(
                f"{names.row(trial)['called']} mean {own['iou'].mean():.3f}, least {worst['class']} {worst['iou']:.3f}"
            )
    shown = chosen_parts(chosen)
    shown["transform"] += [
        {"flatten": list(columns)},
        {
            "lookup": "class",
            "from": {
                "data": values([{"class": n, "label": c} for n, c in enumerate(classes)]),
                "key": "class",
                "fields": ["label"],
            },
        },
    ]
    found = tooltip(
        ("label", "class"), ("iou", "IoU"), ("false_positive", "false positive"), ("false_negative", "false negative")
    )
    encoding = {
        "y": {"field": "label", "type": "nominal", "sort": {"field": "class"}, "title": None, "axis": {"grid": True}},
        "x": axis_of("iou", "IoU of the CAM"),
        "color": _colour_of_chosen(),
        "tooltip": found,
    }
    layers = [{"mark": {"type": "point", "filled": True, "opacity": 0.9}, "encoding": encoding}]
    says = f"IoU of the CAM by class: {'; '.join(parts)}."
    return chart("CAM by class", layers, says, data=values(data), height={"step": 18}, **shown)


def cam_chart(tables: Tables, study: str, names: Named) -> Chart | None:
    """Segmentation mIoU against CAM mIoU, a point a finished trial. None if no trial has both."""
    done = tables.finished(study)
    if not {CAM_MIOU, SEG_MIOU} <= set(done):
        return None
    both = done.dropna(subset=[CAM_MIOU, SEG_MIOU])
    if both.empty:
        return None
    rows = []
    for _, row in both.iterrows():
        repeat = row["setting"] != row["trial"]
        rows.append(names.row(row["trial"]) | {"cam": row[CAM_MIOU], "seg": row[SEG_MIOU], "seed": row["seed"]})
        rows[-1] |= {"of": "a repeat, fresh seed" if repeat else "of the search"}
        rows[-1] |= {"cam_text": f"{row[CAM_MIOU]:.3f}", "seg_text": f"{row[SEG_MIOU]:.3f}"}
    found = tooltip(("seed", "seed"), ("cam_text", title_of(CAM_MIOU)), ("seg_text", title_of(SEG_MIOU)))
    colour = {"field": "of", "type": "nominal", "legend": {}}
    colour["scale"] = {"domain": ["of the search", "a repeat, fresh seed"], "range": [QUIET, FIRST]}
    encoding = {
        "x": axis_of("cam", title_of(CAM_MIOU)),
        "y": axis_of("seg", title_of(SEG_MIOU)),
        "color": colour,
        "tooltip": found,
    }
    layers = [{"mark": {"type": "point", "filled": False}, "encoding": encoding}]
    r = both[CAM_MIOU].corr(both[SEG_MIOU]) if len(both) > 2 else math.nan
    spans = (f"{title_of(name)} {both[name].min():.3f} to {both[name].max():.3f}" for name in (CAM_MIOU, SEG_MIOU))
    says = f"{len(both)} finished trials: {', '.join(spans)}" + ("." if pd.isna(r) else f", correlation {r:.2f}.")
    return chart("Segmentation against CAM", layers, says, NARROW, data=values(rows))
