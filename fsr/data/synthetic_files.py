"""Scenes on disk, exactly as VOC 2012 and COCO 2014 lie there, so that every tool for these reads them unchanged."""

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fsr.data.own_classes import FILE
from fsr.data.palette import palette_png
from fsr.data.scenes import SIDE, Scene


class VocWriter:
    """Writes scenes of these classes, from 1, in VOC's layout below `root`."""

    def __init__(self, root: Path, class_names: Sequence[str]) -> None:
        self.root, self.class_names = root, class_names
        self.names: dict[str, list[str]] = {"train": [], "val": []}
        for folder in ("JPEGImages", "SegmentationClass", "SegmentationClassAug", "Annotations"):
            (root / folder).mkdir(parents=True)

    def write(self, scene: Scene, index: int, split: str) -> None:
        """Add scene number `index` to `train` or `val`."""
        name = f"2012_{index:06d}"
        self.names[split].append(name)
        (self.root / "JPEGImages" / f"{name}.jpg").write_bytes(jpeg(scene.pixels))
        mask = palette_png(scene.ground_truth)
        for folder in ("SegmentationClass", "SegmentationClassAug"):
            (self.root / folder / f"{name}.png").write_bytes(mask)
        (self.root / "Annotations" / f"{name}.xml").write_text(_voc_xml(name, scene, self.class_names))

    def finish(self) -> None:
        """Write the names of the classes, and the lists that come with VOC."""
        write_class_names(self.root, self.class_names)
        folder = self.root / "ImageSets" / "Segmentation"
        folder.mkdir(parents=True)
        for split, names in (self.names | {"trainval": self.names["train"] + self.names["val"]}).items():
            (folder / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))


class CocoWriter:
    """Writes scenes of these classes, from 1, in COCO's layout below `root`; categories have the numbers of classes."""

    def __init__(self, root: Path, class_names: Sequence[str]) -> None:
        self.root, self.class_names = root, class_names
        self.images: dict[str, list[dict[str, Any]]] = {"train": [], "val": []}
        self.annotations: dict[str, list[dict[str, Any]]] = {"train": [], "val": []}
        for split in self.images:
            (root / "JPEGImages" / f"{split}2014").mkdir(parents=True)
            (root / "SegmentationClass" / f"{split}2014").mkdir(parents=True)

    def write(self, scene: Scene, index: int, split: str) -> None:
        """Add scene number `index` to `train` or `val`."""
        name = f"COCO_{split}2014_{index:012d}"
        (self.root / "JPEGImages" / f"{split}2014" / f"{name}.jpg").write_bytes(jpeg(scene.pixels))
        (self.root / "SegmentationClass" / f"{split}2014" / f"{name}.png").write_bytes(palette_png(scene.ground_truth))
        self.images[split].append({"id": index, "file_name": f"{name}.jpg", "width": SIDE, "height": SIDE})
        for thing in scene.things:
            left, top, right, bottom = thing.box
            self.annotations[split].append(
                {
                    "id": len(self.annotations["train"]) + len(self.annotations["val"]) + 1,
                    "image_id": index,
                    "category_id": thing.class_id,
                    "iscrowd": 0,
                    "area": thing.area,
                    "bbox": [left, top, right - left + 1, bottom - top + 1],
                    # COCO counts from a pixel's corner, the outline from its centre.
                    "segmentation": [(thing.outline + 0.5).round(2).flatten().tolist()],
                }
            )

    def finish(self) -> None:
        """Write the annotations of both sets."""
        folder = self.root / "annotations"
        folder.mkdir()
        write_class_names(self.root, self.class_names)
        categories = [{"id": class_id, "name": name} for class_id, name in enumerate(self.class_names, 1)]
        for split, images in self.images.items():
            content = {"images": images, "annotations": self.annotations[split], "categories": categories}
            (folder / f"instances_{split}2014.json").write_text(json.dumps(content))


def write_class_names(root: Path, class_names: Sequence[str]) -> None:
    """Name the classes of the set, from 1."""
    (root / FILE).write_text("".join(f"{name}\n" for name in class_names))


def jpeg(pixels: np.ndarray) -> bytes:
    """A JPEG of uint8 [H, W, 3], with full colour resolution: markers are small."""
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=90, subsampling=0)
    return stream.getvalue()


def _voc_xml(name: str, scene: Scene, class_names: Sequence[str]) -> str:
    objects = "".join(
        f"""\t<object>
\t\t<name>{class_names[thing.class_id - 1]}</name>
\t\t<pose>Unspecified</pose>
\t\t<truncated>0</truncated>
\t\t<difficult>0</difficult>
\t\t<bndbox>
\t\t\t<xmin>{thing.box[0] + 1}</xmin>
\t\t\t<ymin>{thing.box[1] + 1}</ymin>
\t\t\t<xmax>{thing.box[2] + 1}</xmax>
\t\t\t<ymax>{thing.box[3] + 1}</ymax>
\t\t</bndbox>
\t</object>
"""
        for thing in scene.things
    )
    return f"""<annotation>
\t<folder>VOC2012</folder>
\t<filename>{name}.jpg</filename>
\t<source>
\t\t<database>fsr.data.synthetic</database>
\t</source>
\t<size>
\t\t<width>{SIDE}</width>
\t\t<height>{SIDE}</height>
\t\t<depth>3</depth>
\t</size>
\t<segmented>1</segmented>
{objects}</annotation>
"""
