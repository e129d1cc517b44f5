"""The report page: scores, CAM quality, confusions and a gallery, of one inference or of two, in one HTML file."""

import json
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from fsr.breakdown import largest_confusions
from fsr.data.images import IGNORED
from fsr.data.palette import voc_palette
from fsr.files import atomic_file
from fsr.inference.tiles import Strip
from fsr.inference.totals import other_mious

TEMPLATE = Path(__file__).with_name("report.html")
# Every text is escaped. What the page does in a browser it does with what stands in it: nothing is loaded.
_ENVIRONMENT = Environment(
    loader=FileSystemLoader(TEMPLATE.parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class Side:
    """One of the inferences that a page shows. All scores are fractions.

    Lists by class have an entry for each class, None (not NaN) where it is absent.
    """

    letter: str
    """A or B; empty if it is the only one."""
    facts: dict[str, str]
    scores: dict[str, dict[str, Any]]
    """By title of a kind of labels; empty without ground truth."""
    cam_quality: dict[str, dict[str, Any]]
    confusion: dict[str, list[list[int]]]
    """By title of a kind of labels, pixels by ground truth (row) and prediction (column)."""
    errors: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By title of a kind of labels, what errors.json tells; empty without ground truth."""
    examples: dict[str, dict[int, int]] = field(default_factory=dict)
    """By title of a kind of labels and entry of its confusion matrix, which image of the gallery has most such
    pixels."""


@dataclass(frozen=True)
class ImageAnswer:
    """What one inference says of an image."""

    iou: float | None
    """Mean IoU of the image's classes in [0, 1]; None where there is no ground truth."""
    strips: Mapping[str, Strip]
    """By title, in the order of the columns."""
    confusion: Mapping[str, Sequence[int]]
    """By title of a kind of labels, entry of the confusion matrix and pixels, in turns."""


@dataclass(frozen=True)
class GalleryImage:
    """One image of the gallery."""

    name: str
    classes: tuple[int, ...]
    """Class ids in the ground truth or in a prediction; background (0) left out."""
    size: tuple[int, int]
    photograph: bytes
    """WebP."""
    ground_truth: Strip | None
    answers: tuple[ImageAnswer, ...]
    """One a side."""

    @property
    def change(self) -> float | None:
        """How much higher the last side's mean IoU is than the first one's."""
        first, last = self.answers[0].iou, self.answers[-1].iou
        return None if first is None or last is None else last - first


def write_report(
    path: Path,
    *,
    title: str,
    class_names: Sequence[str],
    sides: Sequence[Side],
    columns: Sequence[str],
    gallery: Iterable[GalleryImage],
    images: int,
) -> None:
    """Write the page to `path` atomically. It opens from disk and loads nothing from the network.

    `columns` are the titles of strips, in order. `gallery` in its order is taken image by image, so no more than one
    needs to be in memory; `images` is the number of images in the set, of which the gallery may be a part.
    """
    scores = [score for side in sides for score in side.scores.values()]
    by_class = [score["iou"] for score in scores]
    kinds = ("precision", "recall", "false_positive", "false_negative")
    by_class += [quality[kind] for side in sides for quality in side.cam_quality.values() for kind in kinds]
    assert all(len(values) == len(class_names) for values in by_class), "lists by class must be as long as class_names"
    shown: list[dict[str, Any]] = []  # what the script needs of each image, known once the gallery is written

    def noted() -> Iterable[GalleryImage]:
        for image in gallery:
            ious, confusions = zip(*((answer.iou, answer.confusion) for answer in image.answers), strict=True)
            shown.append({"name": image.name, "classes": image.classes, "iou": ious, "confusion": confusions})
            yield image

    def data() -> Markup:
        """What the script reads, as JSON; no text in it can end its element."""
        content = {
            "classes": [{"name": name, "colour": colour} for name, colour in zip(class_names, colours, strict=False)],
            "confusion": [side.confusion for side in sides],
            "letters": [side.letter for side in sides],
            "images": images,
            "shown": shown,
        }
        return Markup(json.dumps(content, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"))

    colours = [f"#{bytes(colour).hex()}" for colour in voc_palette()]
    parts = _ENVIRONMENT.get_template(TEMPLATE.name).generate(
        title=title,
        class_names=class_names,
        colours=colours,
        ignored=IGNORED,
        sides=sides,
        columns=columns,
        gallery=noted(),
        images=images,
        largest_confusions=[largest_confusions(next(iter(side.confusion.values()), [])) for side in sides],
        other_mious=[(title, name) for name, title in other_mious(scores).items()],
        percent=percent,
        base64=base64,
        data=data,
    )
    with atomic_file(path) as file:
        for part in parts:
            file.write(part.encode(errors="xmlcharrefreplace"))  # of a name that is no Unicode, as Linux allows


def percent(fraction: float | None, digits: int = 1) -> str:
    """A fraction in percent, without the sign."""
    return "–" if fraction is None else f"{100 * fraction:.{digits}f}"


def base64(content: bytes) -> str:
    """As data URLs have it."""
    return b64encode(content).decode()
