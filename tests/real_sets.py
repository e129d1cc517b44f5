"""Synthetic sets that stand for VOC and COCO: their classes bear the real names, and no classes.txt tells others."""

import json
from pathlib import Path

from fsr.data.coco import CATEGORIES
from fsr.data.own_classes import FILE
from fsr.data.synthetic_names import SEGMENTATION_NAMES
from fsr.data.voc import CLASS_NAMES


def as_real(data_folder: Path) -> Path:
    """Let the synthetic set in a data folder be as one of the real data set, and as it was before it had names."""
    (names,) = data_folder.rglob(FILE)
    names.unlink()
    for file in names.parent.glob("Annotations/*.xml"):
        text = file.read_text()
        for own, real in zip(SEGMENTATION_NAMES, CLASS_NAMES[1:], strict=False):
            text = text.replace(f"<name>{own}</name>", f"<name>{real}</name>")
        file.write_text(text)
    for file in names.parent.glob("annotations/*.json"):
        content = json.loads(file.read_text())
        for category in content["categories"]:
            category["name"] = CATEGORIES[category["id"]]
        file.write_text(json.dumps(content))
    return data_folder
