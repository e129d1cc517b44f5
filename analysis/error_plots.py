"""The plots of `analysis.inference_errors`; each returns a figure."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.inference_errors import most_such_pixels
from fsr.data.images import read_image, read_mask
from fsr.data.palette import voc_palette
from fsr.data.source import Source
from fsr.inference.journal import Results


def trimap(table: pd.DataFrame) -> Figure:
    """mIoU within a distance from true boundaries, a line a kind of labels of an inference."""
    figure, axes = plt.subplots(figsize=(6, 3.4))
    for name, curve in _lines(table):
        axes.plot(curve["width"], curve["miou"], "o-", markersize=3, label=name)
    axes.set(xlabel="pixels from a true boundary", ylabel="mIoU", ylim=(0, None))
    return _with_legend(figure)


def reliability(table: pd.DataFrame) -> Figure:
    """How often pixels of a confidence are right, a line a kind of labels of an inference; and how many they are."""
    figure, (axes, below) = plt.subplots(2, 1, figsize=(4.6, 4.6), sharex=True, height_ratios=(3, 1))
    axes.plot([0, 1], [0, 1], "k:", linewidth=1)
    for name, bins in _lines(table):
        axes.plot(bins["confidence"], bins["accuracy"], "o-", markersize=3, label=name)
        below.plot(bins["confidence"], bins["pixels"] / bins["pixels"].sum(), "o-", markersize=3)
    axes.set(ylabel="right", ylim=(0, 1), xlim=(0, 1))
    below.set(xlabel="confidence", ylabel="of pixels")
    return _with_legend(figure)


def by_what_is_shown(table: pd.DataFrame) -> Figure:
    """mIoU by size of objects and number of classes, a bar a kind of labels of an inference."""
    wide = table.assign(name=table["inference"] + ": " + table["labels"])
    order = {axis: wide[axis].drop_duplicates() for axis in ("what", "name")}
    wide = wide.pivot(index="what", columns="name", values="miou").reindex(order["what"], columns=order["name"])
    axes = wide.astype(float).dropna(how="all").plot.bar(figsize=(9, 3.4), width=0.8, rot=0, legend=False)
    axes.set(xlabel="", ylabel="mIoU")
    return _with_legend(axes.figure)


def confusion(
    source: Source | None, folder: Path, kind: str, true: int, said: int, classes: int, images: int = 3
) -> Figure | None:
    """The images with most pixels of class `true` that are labelled `said`: picture, ground truth, labels.

    Without the data set, the labels alone. None if there are no such pixels, or their label maps are gone.
    """
    names = most_such_pixels(folder, kind, true * classes + said, images)
    names = [name for name in names if Results(folder).label_file(kind, name).exists()]
    if not names:
        return None
    infer_set = str(Results(folder).made()["settings"].get("infer_set"))
    rows = [_row(source, infer_set, folder, kind, name, classes) for name in names]
    figure, grid = plt.subplots(len(rows), len(rows[0]), figsize=(2.6 * len(rows[0]), 2.1 * len(rows)), squeeze=False)
    for name, row, all_axes in zip(names, rows, grid, strict=True):
        for (title, pixels), axes in zip(row.items(), all_axes, strict=True):
            axes.imshow(pixels, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.grid(visible=False)
            axes.set_title(title if axes in grid[0] else "", fontsize=8)
        all_axes[0].set_ylabel(name, fontsize=7)
    return figure


def _row(
    source: Source | None, infer_set: str, folder: Path, kind: str, name: str, classes: int
) -> dict[str, np.ndarray]:
    colours = voc_palette()
    shown: dict[str, np.ndarray] = {}
    size = None
    if source is not None:
        picture = read_image(source.image_file(name, infer_set))
        size = picture.size
        truth = source.ground_truth(name, infer_set, size)
        shown["image"] = np.asarray(picture)
        if truth is not None:
            shown["ground truth"] = colours[truth]
    labels = read_mask(Results(folder).label_file(kind, name), size, classes)
    return shown | {kind: colours[labels]}


def _lines(table: pd.DataFrame) -> Sequence[tuple[str, pd.DataFrame]]:
    parts = table.astype({"inference": str}).groupby(["inference", "labels"], sort=False)
    return [(f"{inference}: {labels}", rows) for (inference, labels), rows in parts]


def _with_legend(figure: Figure) -> Figure:
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", frameon=False, fontsize=7)
    return figure
