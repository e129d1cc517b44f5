"""The report of an inference: its scores, and the worst images of each class; or of two, and where they differ most."""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from fsr.bounded_map import bounded_map
from fsr.data.image_set import ImageSet
from fsr.data.images import read_mask
from fsr.inference.answered import Answered, Brief
from fsr.inference.cam_maps import KINDS as CAM_KINDS
from fsr.inference.cam_maps import CamMaps, read_cam_maps
from fsr.inference.config import InferConfig
from fsr.inference.journal import Results
from fsr.inference.report import GalleryImage, ImageAnswer, Side, write_report
from fsr.inference.tiles import tiles
from fsr.inference.totals import TITLES

GROUND_TRUTH = "ground truth"
_COLUMNS = (*CAM_KINDS, "segmentation", "crf", "pseudo_labels", "single_scale", "gated")


class Shown(NamedTuple):
    """An image of the gallery: its record in each of the inferences."""

    briefs: tuple[Brief, ...]

    @property
    def change(self) -> float | None:
        """How much higher the last one's mean IoU is than the first one's."""
        first, last = self.briefs[0].iou, self.briefs[-1].iou
        return None if first is None or last is None else last - first


def write_gallery(config: InferConfig, source: ImageSet, answered: Answered) -> None:
    """Write report.html from the saved results: the worst images of each class. Runs no network."""
    shown = [Shown((brief,)) for brief in worst_of_each_class(answered.briefs, config.report_images)]
    title = f"{config.called}: {config.checkpoint}"
    _write(answered.results.report_file, title, config, source, (answered,), shown)


def write_comparison(config: InferConfig, source: ImageSet, answered: Answered, other: Answered) -> Path:
    """Write the report of two inferences of the same images: those whose mean IoU differs most. Returns its file.

    The other one is A and this one B, so a difference above 0 says that this one is better.
    """
    others = {brief.name: brief for brief in other.briefs}
    both = [Shown((others[brief.name], brief)) for brief in answered.briefs if brief.name in others]
    both.sort(key=lambda shown: (shown.change is None, -abs(shown.change or 0), shown.briefs[0].name))
    file = answered.results.comparison_file(other.results.folder)
    title = f"{config.called}: {other.results.folder} and {answered.results.folder}"
    _write(file, title, config, source, (other, answered), both[: config.report_images])
    return file


def _write(
    file: Path, title: str, config: InferConfig, source: ImageSet, sides: Sequence[Answered], shown: list[Shown]
) -> None:
    draw = partial(_drawn, source, config.infer_set, [side.results for side in sides])
    pairs = zip("AB" if len(sides) > 1 else ("",), sides, strict=True)
    write_report(
        file,
        title=title,
        class_names=source.class_names,
        sides=[
            _side(letter, side, [image.briefs[place] for image in shown]) for place, (letter, side) in enumerate(pairs)
        ],
        columns=[TITLES[kind] for kind in _COLUMNS if any(kind in _kinds(side.results) for side in sides)],
        gallery=bounded_map(draw, shown, config.threads or torch.get_num_threads()),
        images=sides[0].totals.images,
    )


def _side(letter: str, answered: Answered, shown: Sequence[Brief]) -> Side:
    totals, made = answered.totals, answered.results.made()
    settings = made["settings"]
    names = ["weights", "scales", "precision", "crf", "pseudo_labels"]
    names += ["gate_threshold"] if settings.get("class_gating") else []
    chosen = {name: settings.get(name) for name in names} | {"bkg_threshold": totals.threshold}
    scores = totals.scores()
    main = ("crf", "segmentation")
    errors = totals.error_scores()
    order = [kind for kind in dict.fromkeys((*main, *TITLES)) if kind in scores]
    return Side(
        letter,
        facts={
            "results": str(answered.results.folder),
            "checkpoint": f"{answered.checkpoint} (SHA-256 {str(settings.get('checkpoint_sha256'))[:12]}…)",
            "date": str(made["provenance"].get("started")),
            "commit": str(made["provenance"].get("git_commit")),
            "settings": ", ".join(f"{name} {value}" for name, value in chosen.items() if value is not None),
            "skipped": f"{len(totals.skipped)} images that could not be read",
        },
        scores={TITLES[kind]: scores[kind] for kind in order},
        cam_quality={TITLES[kind]: q for kind, q in totals.cam_quality().items() if q.get("best_miou") is not None},
        confusion={TITLES[kind]: totals.matrix(kind).counts.tolist() for kind in order},
        errors={TITLES[kind]: errors[kind] for kind in order},
        examples=_examples(shown),
    )


def _examples(shown: Sequence[Brief]) -> dict[str, dict[int, int]]:
    """By title of a kind of labels and entry of its confusion matrix, which of the images has most such pixels."""
    most: dict[str, dict[int, tuple[int, int]]] = defaultdict(dict)  # pixels, and the place, of which the first is best
    for place, brief in enumerate(shown):
        for title, pairs in brief.confusion.items():
            for entry, pixels in zip(pairs[::2], pairs[1::2], strict=True):
                most[title][entry] = max(most[title].get(entry, (0, 0)), (pixels, -place))
    return {title: {entry: -place for entry, (_, place) in entries.items()} for title, entries in most.items()}


def _drawn(source: ImageSet, split: str, results: Sequence[Results], shown: Shown) -> GalleryImage:
    """The pictures of an image, read from data set and results. Raises UserError for a file that cannot be read."""
    name = shown.briefs[0].name
    picture = source.picture(name, split)
    layers: dict[str, np.ndarray | CamMaps] = {}
    truth = source.ground_truth(name, split, picture.size)
    if truth is not None:
        layers[GROUND_TRUTH] = truth
    titles = []
    for number, of in enumerate(results):
        found = _layers(of, name, picture.size, len(source.class_names))
        titles.append([*found])
        layers |= {f"{number} {title}": layer for title, layer in found.items()}
    made = tiles(picture, layers)
    return GalleryImage(
        name=name,
        classes=tuple(sorted({class_id for brief in shown.briefs for class_id in brief.classes})),
        size=made.size,
        photograph=made.photograph,
        ground_truth=made.strips.get(GROUND_TRUTH),
        answers=tuple(
            ImageAnswer(brief.iou, {title: made.strips[f"{number} {title}"] for title in of}, brief.confusion)
            for number, (brief, of) in enumerate(zip(shown.briefs, titles, strict=True))
        ),
    )


def _layers(results: Results, name: str, size: tuple[int, int], classes: int) -> dict[str, np.ndarray | CamMaps]:
    """What an inference says of an image, by title in the order of the columns."""
    kinds = _kinds(results)
    layers: dict[str, np.ndarray | CamMaps] = {}
    if CAM_KINDS[0] in kinds:
        found = read_cam_maps(results.cam_maps_file(name))
        layers = {TITLES[kind]: CamMaps(found.classes, found.maps[i]) for i, kind in enumerate(CAM_KINDS)}
    labels = [kind for kind in kinds if kind not in CAM_KINDS]
    return layers | {TITLES[kind]: read_mask(results.label_file(kind, name), size, classes) for kind in labels}


def _kinds(results: Results) -> list[str]:
    """What an inference saved of each image. Version 0.1.0 saved no maps of CAMs."""
    folders = {kind: "cam_maps" if kind in CAM_KINDS else kind for kind in _COLUMNS}
    return [kind for kind, folder in folders.items() if (results.folder / folder).exists()]


def worst_of_each_class(briefs: Sequence[Brief], limit: int) -> list[Brief]:
    """At most `limit` images: the worst of each class in turn, so that no class is missing. The worst comes first."""

    def badness(brief: Brief) -> tuple[bool, float, str]:
        return brief.iou is None, brief.iou or 0, brief.name

    places: dict[int, int] = defaultdict(int)  # how many worse images a class has
    ranked = []
    for brief in sorted(briefs, key=badness):
        classes = brief.classes or (0,)
        ranked.append((min(places[class_id] for class_id in classes), brief))
        for class_id in classes:
            places[class_id] += 1
    ranked.sort(key=lambda pair: pair[0])
    return sorted((brief for _, brief in ranked[:limit]), key=badness)
