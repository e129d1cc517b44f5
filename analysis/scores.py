"""The scores of a study's checkpoints, as `fsr infer --study` left them: a row a checkpoint, network, list and kind."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from typing_extensions import TypedDict

from fsr.json_file import UNREADABLE, DamagedError, read_json
from launch.state.paths import EvaluationFolder

# What is scored of a list of training images, and of any other, in the order of a paper's columns.
SEEDS = {"cam": "CAM seed", "pseudo_labels": "pseudo label"}
SEGMENTATIONS = {
    "single_scale": "single scale",
    "segmentation": "multi-scale",
    "gated": "class-gated",
    "crf": "multi-scale + CRF",
}
TITLES = SEEDS | SEGMENTATIONS
COLUMNS = ("trial", "network", "set", "kind", "miou", "pixel_accuracy", "images", "skipped", "folder")


class ScoresFile(TypedDict):
    """What scores.json of an inference says."""

    settings: dict[str, Any]
    images: int
    skipped: dict[str, str]
    scores: dict[str, dict[str, Any]]
    """By kind of labels; empty without ground truth."""


@dataclass(frozen=True)
class Scores:
    """What the inferences of a study's checkpoints have come to."""

    checkpoints: pd.DataFrame
    """A row a `trial`, `network` (student, teacher), `set` (list of images) and `kind` (of `TITLES`): its `miou` and
    `pixel_accuracy` as fractions, the `images` and how many of them were `skipped`, and the results' `folder`."""
    archives: tuple[Path, ...]
    """What was packed for the evaluation server."""
    notes: tuple[str, ...]
    """Sentences on what is missing: inferences that are not finished, files that cannot be read."""


def read_scores(folder: EvaluationFolder) -> Scores:
    """Read the results of all inferences that are finished. What cannot be read is noted, the rest is read."""
    rows: list[dict[str, Any]] = []
    archives, notes, unfinished = [], [], []
    for results in folder.all_results():
        try:
            rows += _rows(read_json(results.scores_file, ScoresFile, newer=True), results.folder)
        except FileNotFoundError:
            unfinished.append(results.folder)
            continue
        except UNREADABLE as error:
            notes.append(str(error))
            continue
        if results.archive_file.exists():
            archives.append(results.archive_file)
    if unfinished:
        notes.append(f"{len(unfinished)} inferences are not finished, among them {unfinished[0]}")
    skipped = {row["folder"]: row["skipped"] for row in rows if row["skipped"]}
    notes += [f"{number} images could not be read and are in no score of {place}" for place, number in skipped.items()]
    return Scores(pd.DataFrame(rows, columns=list(COLUMNS)), tuple(archives), tuple(notes))


def _rows(told: ScoresFile, folder: Path) -> list[dict[str, Any]]:
    """The rows of an inference. Raises DamagedError for a score that is no fraction."""
    settings = told["settings"]
    about = {
        "trial": int(folder.parent.name.removeprefix("trial_")),
        "network": str(settings.get("weights")),
        "set": str(settings.get("infer_set")),
        "images": told["images"] - len(told["skipped"]),
        "skipped": len(told["skipped"]),
        "folder": str(folder),
    }
    rows = []
    for kind in SEGMENTATIONS if settings.get("pseudo_labels") == "none" else SEEDS:
        if kind not in told["scores"]:
            continue
        scores = {name: told["scores"][kind].get(name) for name in ("miou", "pixel_accuracy")}
        for name, value in scores.items():
            if value is not None and not (isinstance(value, float | int) and 0 <= value <= 1):
                raise DamagedError(f"{folder / 'scores.json'} is damaged: {name} of {kind} is {value!r:.60}")
        rows.append(about | {"kind": kind} | scores)
    return rows
