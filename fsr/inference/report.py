"""The report page: scores, CAM quality and a gallery, in one self-contained HTML file."""

import json
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsr.data.palette import voc_palette
from fsr.files import atomic_file

# The page draws itself from JSON that is embedded in it, so no name in the data can become markup.
TEMPLATE = Path(__file__).with_name("report.html")
PLACE = "<!-- data -->"


@dataclass(frozen=True)
class GalleryImage:
    """One image of the gallery, as the page shows it."""

    name: str
    classes: tuple[int, ...]
    """Class ids in the ground truth or in the prediction; background (0) left out."""
    iou: float | None
    """Mean IoU of the image's classes in [0, 1]; None where there is no ground truth."""
    strip: bytes
    """A JPEG: equally wide tiles side by side, one per column of the gallery."""


def write_report(
    path: Path,
    *,
    title: str,
    facts: dict[str, str],
    class_names: Sequence[str],
    scores: dict[str, dict[str, Any]],
    cam_quality: dict[str, dict[str, Any]],
    columns: Sequence[str],
    gallery: Sequence[GalleryImage],
    images: int,
) -> None:
    """Write the page to `path` atomically. It opens from disk and loads nothing from the network.

    All scores are fractions; lists by class have an entry for each of `class_names`, None (not NaN) where it is absent.

    - `facts`: what was run, as name and value.
    - `scores`: by name of the answer ("segmentation", "CAM", ...), the main one first: `miou`, `pixel_accuracy` and
      `iou` by class. Empty for a set without ground truth.
    - `cam_quality`: by name of the CAM: `miou` at `threshold`, `best_miou` at `best_threshold`, `curve` as pairs
      (threshold, mIoU), and `precision`, `recall`, `false_positive`, `false_negative` by class. May be empty.
    - `columns`: names of the tiles of the strips in `gallery`, which is shown worst first.
    - `images`: number of images in the set, of which the gallery may be a part.
    """
    by_class = [score["iou"] for score in scores.values()]
    kinds = ("precision", "recall", "false_positive", "false_negative")
    by_class += [quality[kind] for quality in cam_quality.values() for kind in kinds]
    assert all(len(values) == len(class_names) for values in by_class), "lists by class must be as long as class_names"
    colours = voc_palette()[: len(class_names)]
    report = {
        "title": title,
        "facts": facts,
        "classes": [
            {"name": name, "colour": f"#{bytes(colour).hex()}"}
            for name, colour in zip(class_names, colours, strict=True)
        ],
        "scores": scores,
        "cam_quality": cam_quality,
        "columns": list(columns),
        "images": images,
    }
    before, after = TEMPLATE.read_bytes().split(PLACE.encode())
    with atomic_file(path) as file:
        file.write(before + _data("report", report))
        for image in sorted(gallery, key=lambda image: (image.iou is None, image.iou or 0, image.name)):
            strip = b64encode(image.strip).decode()
            # An element for each: no string in the page is as long as the whole gallery.
            file.write(_data("image", {"name": image.name, "classes": image.classes, "iou": image.iou, "strip": strip}))
        file.write(after)


def _data(kind: str, value: Any) -> bytes:
    """A script element that holds `value` as JSON and is not run; no text in it can end it."""
    text = json.dumps(value, allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json" class="{kind}">{text}</script>\n'.encode()
