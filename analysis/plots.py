"""The plots that several notebooks draw from the tables of `analysis.load`; each returns a figure."""

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter
from PIL import Image

from analysis.ranking import parameters, ranking, setting_names
from analysis.tables import Tables
from fsr.data.images import open_picture
from fsr.run import Run
from fsr.score_names import SEG_MIOU, title_of
from fsr.setting_text import setting_text

FIRST, SECOND, QUIET = "#2f6db5", "#c8741a", "#9aa1ab"


def intervals(ranked: pd.DataFrame, score: str = SEG_MIOU, most: int = 12) -> Figure:
    """The best settings of a `ranking`: scores in the search and over fresh seeds, and differences from trial 0's."""
    shown = ranked.head(most).iloc[::-1]
    called = setting_names(ranked)
    names = [wrapped(called[trial]) for trial in shown["trial"]]
    lines = sum(name.count("\n") + 1 for name in names)
    size = (6 + 0.075 * max((len(line) for name in names for line in name.split("\n")), default=0), 1.2 + 0.32 * lines)
    figure, (left, right) = plt.subplots(1, 2, figsize=size, sharey=True, width_ratios=(3, 2))
    places = np.arange(len(shown))
    left.plot(shown["searched"], places, "o", color=QUIET, markerfacecolor="none", label="search, one seed")
    bars = {"fmt": "o", "color": FIRST, "capsize": 3, "label": "fresh seeds, 95 %"}
    repeated = shown["seeds"].to_numpy() > 0
    left.errorbar(shown["mean"][repeated], places[repeated], xerr=shown["half_width"][repeated].fillna(0), **bars)
    compared = shown["difference"].notna().to_numpy()
    width = shown["difference_half_width"][compared].fillna(0)
    right.errorbar(shown["difference"][compared], places[compared], xerr=width, **bars)
    right.axvline(0, color=SECOND, linewidth=1, linestyle=":")
    left.set_yticks(places, names)
    left.set_xlabel(title_of(score))
    right.set_xlabel("difference from trial 0, seed by seed")
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False)
    return figure


def learning_curves(tables: Tables, study: str, score: str = SEG_MIOU) -> Figure:
    """A score by step, a line a trial; colours show which are finished, pruned, failed and running."""
    trials = tables.trials[tables.trials["study"] == study].set_index("trial")
    states = trials["state"].to_dict()
    curves = tables.curves[tables.curves["study"] == study]
    curves = curves[["trial", "step", score]].dropna() if score in curves else curves.head(0)
    colours = {"complete": FIRST, "pruned": SECOND, "fail": "#b5372f", "running": "#3f8f5b"}
    figure, axes = plt.subplots(figsize=(8, 3.2))
    for trial, curve in curves.groupby("trial"):
        colour = colours[states[trial]]
        axes.plot(curve["step"], curve[score], "o-", markersize=3, linewidth=1, color=colour, alpha=0.7)
    for state, number in trials["state"].value_counts().items():
        if number and state in colours:
            axes.plot([], [], "o-", color=colours[str(state)], label=f"{number} {state}")
    axes.set_xlabel("step")
    axes.set_ylabel(title_of(score))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
    return figure


def effects(tables: Tables, study: str, score: str = SEG_MIOU) -> Figure | None:
    """What each parameter of a study did: every trial of the search, and the repeated settings with intervals.

    None for a study without finished trials.
    """
    ranked = ranking(tables, study, score)
    names = parameters(ranked)
    if not names:
        return None
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    size = (max(4.2, 3.2 * columns), 2.9 * rows)
    figure, all_axes = plt.subplots(rows, columns, figsize=size, sharey=True, squeeze=False)
    repeated = ranked["seeds"].to_numpy() > 0
    for axes, name in zip(all_axes.flat, names, strict=False):
        places = along_axis(axes, ranked[name], tables.distribution(study, name.removeprefix("param/")))
        axes.plot(places, ranked["searched"], "o", color=QUIET, markerfacecolor="none", label="search, one seed")
        axes.errorbar(
            places[repeated],
            ranked["mean"][repeated],
            yerr=ranked["half_width"][repeated].fillna(0),
            fmt="o",
            color=FIRST,
            capsize=3,
            label="fresh seeds, 95 %",
        )
        for place in places[(ranked["trial"] == 0) & places.notna()]:
            axes.axvline(place, color=SECOND, linewidth=1, linestyle=":", label="trial 0's")
        axes.set_xlabel(name.removeprefix("param/"))
    for axes in list(all_axes.flat)[len(names) :]:
        axes.set_visible(False)
    all_axes[0, 0].set_ylabel(title_of(score))
    all_axes[0, 0].legend(frameon=False, fontsize=7)
    return figure


def along_axis(axes: Axes, values: pd.Series, distribution: Mapping[str, Any]) -> "pd.Series[float]":
    """Give a plot the x axis of a parameter that was searched in this `distribution`, a row of `Tables.space`.

    It returns where on it the values lie: a number at itself, a choice at its place among the choices.
    """
    if distribution["kind"] == "categorical":
        choices = list(dict.fromkeys(values.dropna()))
        if not any(isinstance(choice, str) for choice in choices):
            choices.sort()
        axes.set_xticks(range(len(choices)), map(setting_text, choices), rotation=0 if len(choices) < 6 else 45)
        axes.set_xlim(-0.5, len(choices) - 0.5)
        return values.map({choice: place for place, choice in enumerate(choices)}).astype(float)
    if distribution["log"]:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    elif distribution["kind"] == "int":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return values.astype(float)


def threshold_curves(tables: Tables, study: str, trials: Sequence[int]) -> Figure:
    """mIoU of the student's CAMs against the background threshold, a line a trial; the run's own one is marked."""
    names = setting_names(tables.trials[tables.trials["study"] == study])
    quality = tables.cam_quality[(tables.cam_quality["study"] == study) & (tables.cam_quality["network"] == "student")]
    figure, all_axes = plt.subplots(1, 2, figsize=(9, 3.2 + 0.2 * len(trials)), sharey=True)
    for axes, (kind, name) in zip(all_axes, (("cam", "CAM"), ("aux_cam", "aux CAM")), strict=True):
        used = quality[(quality["cam"] == kind) & quality["trial"].isin(trials)]["run_threshold"].dropna().unique()
        for trial in trials:
            curve = quality[(quality["cam"] == kind) & (quality["trial"] == trial)].sort_values("threshold")
            (line,) = axes.plot(
                curve["threshold"], curve["miou"], label=wrapped(names.get(trial, f"trial {trial}"), 100)
            )
            if len(used) > 1:  # the threshold itself was searched
                for threshold in curve["run_threshold"].dropna().unique():
                    axes.axvline(threshold, color=line.get_color(), linewidth=1, linestyle=":")
        for threshold in used if len(used) == 1 else ():
            axes.axvline(threshold, color="k", linewidth=1, linestyle=":")
        axes.plot([], [], color="k", linewidth=1, linestyle=":", label="the run's threshold")
        axes.set_xlabel("background threshold")
        axes.set_title(name)
    all_axes[0].set_ylabel("mIoU")
    figure.legend(*all_axes[0].get_legend_handles_labels(), loc="outside lower center", frameon=False, fontsize=7)
    return figure


def class_errors(tables: Tables, study: str, trials: Sequence[int], kind: str = "cam") -> Figure:
    """IoU, false positives and false negatives of each class as shares of its union, a bar a trial."""
    rows = tables.class_iou[(tables.class_iou["study"] == study) & (tables.class_iou["network"] == "student")]
    rows = rows[rows["kind"] == kind]
    classes = list(dict.fromkeys(rows["class"]))
    figure, axes = plt.subplots(figsize=(9, 3.4))
    width = 0.8 / max(1, len(trials))
    for place, trial in enumerate(trials):
        values = rows[rows["trial"] == trial].set_index("class").reindex(classes)
        x = np.arange(len(classes)) + (place - (len(trials) - 1) / 2) * width
        below = np.zeros(len(classes))
        for part, colour in (("iou", FIRST), ("false_positive", SECOND), ("false_negative", "#d9dce1")):
            share = values[part].astype(float).fillna(0).to_numpy()
            label = part.replace("_", " ") if place == 0 else None
            axes.bar(x, share, width * 0.9, bottom=below, color=colour, label=label)
            below += share
    axes.set_xticks(range(len(classes)), classes, rotation=45 if len(classes) > 10 else 0, ha="center")
    axes.set_ylabel("share of the union")
    axes.set_ylim(0, 1)
    axes.grid(visible=False)
    if classes and trials:
        axes.legend(frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1))
    return figure


def wrapped(name: str, width: int = 60) -> str:
    """A setting's name in lines that a plot has room for; a value stays beside its parameter."""
    pairs = [pair.replace(" ", "\xa0") for pair in name.split("  ")]
    return "\n".join(textwrap.wrap("  ".join(pairs), width, break_long_words=False)).replace("\xa0", " ")


def gallery(runs: Sequence[tuple[str, Run]], images: int = 3) -> Figure | None:
    """The same validation images under different settings, at each run's last evaluation, from its TensorBoard events.

    `runs` are titles and runs. None if none has pictures.
    """
    # Imported here: no other plot needs it.
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    strips: dict[str, dict[str, Image.Image]] = {}
    for title, run in runs:
        if not any(run.folder.glob("events.out.tfevents.*")):
            continue
        events = EventAccumulator(str(run.folder), size_guidance={"images": 0, "scalars": 1, "tensors": 1}).Reload()
        for tag in sorted(events.Tags()["images"])[:images]:
            strips.setdefault(tag, {})[title] = open_picture(
                io.BytesIO(events.Images(tag)[-1].encoded_image_string), "image"
            )
    if not strips:
        return None
    rows = [(tag, title, strip) for tag, by_run in strips.items() for title, strip in by_run.items()]
    width, height = rows[0][2].size
    figure, all_axes = plt.subplots(len(rows), 1, figsize=(9, 9.4 * height / width * len(rows)), squeeze=False)
    for axes, (tag, title, strip) in zip(all_axes[:, 0], rows, strict=True):
        axes.imshow(np.asarray(strip), interpolation="nearest")
        axes.set_ylabel(
            f"{tag.removeprefix('validation/')}\n{wrapped(title)}", rotation=0, ha="right", va="center", fontsize=7
        )
        axes.set(xticks=[], yticks=[])
        axes.grid(visible=False)
    all_axes[0, 0].set_title("image, CAM, aux CAM, mask, pseudo label, prediction, ground truth", fontsize=8)
    return figure
