"""An inference whose images are all done: its totals, and what a report needs of each image."""

from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from fsr.errors import UserError
from fsr.inference.image_record import ImageRecord
from fsr.inference.journal import Results
from fsr.inference.totals import TITLES, Totals
from fsr.json_file import read_json


class Brief(NamedTuple):
    """What a report needs of an image's record: so little that those of a whole data set can be held."""

    name: str
    iou: float | None
    """Mean IoU of its classes; None where it was not measured."""
    classes: tuple[int, ...]
    """In its ground truth or its prediction; background left out."""
    confusion: dict[str, tuple[int, ...]]
    """By title of a kind of labels, entry of the confusion matrix and pixels, in turns; only what is not 0."""


class Answered(NamedTuple):
    """An inference, its totals and its images."""

    results: Results
    checkpoint: str
    totals: Totals
    briefs: list[Brief]
    """Images that were skipped have none."""


def answered_images(
    results: Results, names: Collection[str], checkpoint: str, totals: Totals, *, briefly: bool
) -> Answered:
    """Add up the records of the images `names`, which `totals` has not counted yet; `briefly` keeps what a report needs
    of each."""
    briefs = []
    for record in results.records():
        if record["name"] in names:
            totals.add([record])
            if briefly and "skipped" not in record:
                briefs.append(brief_of(record, totals))
    return Answered(results, checkpoint, totals, briefs)


def brief_of(record: ImageRecord, totals: Totals) -> Brief:
    """What a report needs of a record that `totals` has counted."""
    matrices = ((kind, totals.confusion(kind, pairs)) for kind, pairs in record.get("counts", {}).items())
    confusion = {TITLES[kind]: tuple(n for entry in matrix.items() for n in entry) for kind, matrix in matrices}
    return Brief(record["name"], record.get("iou"), tuple(record.get("classes", ())), confusion)


def finished(folder: Path) -> dict[str, Any]:
    """The settings of a finished inference, as its scores.json tells them.

    Raises UserError if the folder holds none.
    """
    results = Results(folder)
    if not results.settings_file.exists():
        raise UserError(
            f"--compare expects the results folder of an inference, and {folder} has no {results.settings_file.name}"
        )
    if not results.scores_file.exists():
        raise UserError(f"--compare expects a finished inference, and {folder} has no {results.scores_file.name} yet")
    settings = read_json(results.scores_file, dict[str, Any], newer=True).get("settings")
    if not isinstance(settings, dict) or not isinstance(settings.get("bkg_threshold"), float | int):
        raise UserError(f"{results.scores_file} is damaged: it tells no settings")
    return settings


def check_comparable(folder: Path, own: Results, settings: dict[str, Any], names: Collection[str]) -> None:
    """Raise UserError if a folder does not hold a finished inference of the same images and classes as `own`."""
    if folder.resolve() == own.folder.resolve():
        raise UserError(f"--compare expects another results folder than this inference's own, {folder}")
    theirs = finished(folder)
    for name in ("dataset", "infer_set", "num_classes"):
        if theirs.get(name) != settings[name]:
            raise UserError(
                f"--compare expects results of the same images and classes, and {folder} has {name} "
                f"{theirs.get(name)}, not {settings[name]}"
            )
    lacking = set(names) - {record["name"] for record in Results(folder).records()}
    if lacking:
        raise UserError(
            f"--compare expects results of the same images, and {folder} lacks {len(lacking)} of these {len(names)}, "
            f"among them {min(lacking)}"
        )
