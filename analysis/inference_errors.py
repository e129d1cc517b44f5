"""Where checkpoints are wrong, as tables: read from what finished inferences left (`fsr infer`)."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import pandas as pd

from analysis.load import definition_of, study_folder
from fsr.config import TrainConfig
from fsr.data.source import Source, open_source
from fsr.errors import UserError
from fsr.inference.journal import Results
from fsr.json_file import UNREADABLE, DamagedError, read_json
from launch.state.paths import TRIAL, folders_of_trials


class _ErrorsFile(TypedDict):
    class_names: list[str]
    errors: dict[str, dict[str, Any]]


class _ScoresFile(TypedDict):
    scores: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class InferenceErrors:
    """Tables of inferences, an observation a row; `inference` and `labels` say where a row belongs. Fractions."""

    folders: dict[str, Path]
    """Results folder by the name of the inference."""
    scores: pd.DataFrame
    """mIoU as it is counted here and elsewhere, precision and recall of the foreground, boundary IoU, ECE."""
    trimap: pd.DataFrame
    """`width`, and the mIoU of the pixels within it."""
    calibration: pd.DataFrame
    """A bin a row: `confidence`, `accuracy`, `pixels`."""
    shown: pd.DataFrame
    """mIoU by `what` an image shows: the size of its objects, the number of its classes."""
    by_class: pd.DataFrame
    """`class`, IoU, precision, recall, false positives and negatives as shares of the union, boundary IoU."""
    confused: pd.DataFrame
    """`truth` and `prediction` by the `share` of the former's pixels, and their numbers, `true_id` and `said_id`."""
    company: pd.DataFrame
    """A class's false positives: the `share` of them that lies on a class (`on`), or in images that show it (`with`);
    `usual` is the share of the class's own images that show it."""
    damage: list[str]
    """What could not be read."""


def errors_of(studies: Iterable[str], runs: Path, folders: Sequence[str | Path] = ()) -> InferenceErrors:
    """The finished inferences of studies' trials, wherever in the study's folder they are, and those in `folders`."""
    named = {str(folder): Path(folder) for folder in folders}
    for study in studies:
        root = study_folder(study, runs).folder
        inside = (entry for entry in os.scandir(root) if not TRIAL.fullmatch(entry.name) and entry.is_dir())
        places = [root, *sorted(map(Path, inside))]
        trials = [trial for place in places for trial in folders_of_trials(place).items()]
        for number, folder in sorted(trials):
            for file in sorted(folder.glob("*/errors.json")):
                named[f"{study} {number} {file.parent.name}"] = file.parent
    return read_errors(named)


def read_errors(folders: dict[str, Path]) -> InferenceErrors:
    """The errors of inferences by name."""
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in _COLUMNS}
    damage, read = [], {}
    for name, folder in folders.items():
        results = Results(folder)
        try:
            told = read_json(results.errors_file, _ErrorsFile, newer=True)
            scores = read_json(results.scores_file, _ScoresFile, newer=True)["scores"]
            found = [
                (kind, _rows(errors, scores[kind], told["class_names"])) for kind, errors in told["errors"].items()
            ]
        except UNREADABLE as error:
            damage.append(str(error))
            continue
        except (KeyError, TypeError, IndexError) as error:
            damage.append(str(DamagedError(f"{results.errors_file} is damaged: {error!r}")))
            continue
        read[name] = folder
        for kind, tables in found:
            for table, parts in tables.items():
                rows[table] += [{"inference": name, "labels": kind} | part for part in parts]
    frames = {table: pd.DataFrame(parts, columns=[*_WHERE, *_COLUMNS[table]]) for table, parts in rows.items()}
    return InferenceErrors(folders=read, damage=damage, **frames)


_WHERE = ("inference", "labels")
_BY_CLASS = ("iou", "precision", "recall", "false_positive", "false_negative")
_COLUMNS: dict[str, tuple[str, ...]] = {
    "scores": (
        *("miou", "miou_predicted_too", "miou_unlabelled_missed"),
        *("foreground_precision", "foreground_recall", "boundary_iou", "ece"),
    ),
    "trimap": ("width", "miou"),
    "calibration": ("confidence", "accuracy", "pixels"),
    "shown": ("what", "miou"),
    "by_class": ("class", *_BY_CLASS, "boundary_iou"),
    "confused": ("truth", "prediction", "share", "true_id", "said_id"),
    "company": ("class", "share", "on", "with", "usual"),
}


def _rows(errors: dict[str, Any], score: dict[str, Any], names: list[str]) -> dict[str, list[dict[str, Any]]]:
    boundary, calibration = errors.get("boundary", {}), errors.get("calibration", {"bins": []})
    numbers = errors["by_number_of_classes"]
    shown = [(f"{size} objects", of["miou"]) for size, of in errors["by_size"].items()]
    for of in numbers:
        more, many = "+" if of is numbers[-1] else "", "class" if of["classes"] == 1 else "classes"
        shown.append((f"{of['classes']}{more} {many}", of["miou"]))
    measured = score | errors | {"boundary_iou": boundary.get("miou"), "ece": calibration.get("ece")}
    return {
        "scores": [{name: measured[name] for name in _COLUMNS["scores"]}],
        "trimap": [{"width": width, "miou": miou} for width, miou in errors.get("trimap", [])],
        "calibration": [
            {name: of[name] for name in _COLUMNS["calibration"]} for of in calibration["bins"] if of["pixels"]
        ],
        "shown": [{"what": what, "miou": miou} for what, miou in shown],
        "by_class": [
            {"class": name}
            | {column: measured[column][class_id] for column in _BY_CLASS}
            | {"boundary_iou": boundary["iou"][class_id] if boundary else None}
            for class_id, name in enumerate(names)
        ],
        "confused": [
            {"truth": names[of["truth"]], "prediction": names[of["prediction"]], "share": of["share"]}
            | {"true_id": of["truth"], "said_id": of["prediction"]}
            for of in errors["most_confused"]
        ],
        "company": [
            {"class": names[of["class"]], "share": one["share"], where: names[one["class"]], "usual": one.get("usual")}
            for of in errors["co_occurrence"]
            for where in ("on", "with")
            for one in of[where]
        ],
    }


def most_such_pixels(folder: Path, kind: str, entry: int, images: int) -> list[str]:
    """Names of the images of an inference that have most pixels of an entry of a confusion matrix, the most first.

    The entry is the ground truth's class times the number of classes plus the prediction's.
    """
    found = []
    for record in Results(folder).records():
        pairs = record.get("counts", {}).get(kind, [])
        pixels = dict(zip(pairs[::2], pairs[1::2], strict=True)).get(entry, 0)
        if pixels:
            found.append((-pixels, record["name"]))
    return [name for _, name in sorted(found)[:images]]


def data_set_of(inference: str, studies: Sequence[str], runs: Path) -> Source | None:
    """The data set of the study that an inference is of; None if it is of none, or its data are not here."""
    study = inference.split()[0]
    if study not in studies:
        return None
    base = TrainConfig.from_json(definition_of(study_folder(study, runs))["base"])
    try:
        return open_source(base.dataset, base.data_folder, base.list_folder, base.num_classes)
    except UserError:
        return None
