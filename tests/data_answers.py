"""What the tests of data sets share: what `prepare` answers, and lists and masks to be changed."""

from pathlib import Path

import numpy as np
from PIL import Image

from fsr.data.prepare import main

LISTS = "ImageSets/Segmentation"


def answer(capsys, *arguments) -> str:
    """What `prepare` prints, and the sentence with which it refuses."""
    capsys.readouterr()
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        assert end.code == 2
    told = capsys.readouterr()
    assert "Traceback" not in told.err
    if told.err:
        assert told.err.startswith("error: ") and told.err.count("\n") == 1, told.err
    return told.out + told.err


def root_of(folder: Path) -> Path:
    return folder / "VOCdevkit/VOC2012"


def listed(root: Path, name: str) -> list[str]:
    return (root / LISTS / f"{name}.txt").read_text().split()


def write_listed(root: Path, name: str, names: list[str]) -> None:
    (root / LISTS / f"{name}.txt").write_text("".join(f"{name}\n" for name in names))


def every_mask(root: Path, change) -> None:
    """Store each mask anew; `change` makes a picture of class ids [H, W]."""
    for place in ("SegmentationClass", "SegmentationClassAug"):
        for file in (root / place).glob("*.png"):
            change(np.array(Image.open(file))).save(file)
