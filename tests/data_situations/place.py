"""What a situation is made of: data sets that it may change, the real commands, and what they answer."""

import contextlib
import io
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from inference import save_checkpoint
from PIL import Image
from real_sets import as_real
from tiny import TINY, tiny_config

from fsr.data.coco import CocoSource
from fsr.data.prepare import main as prepare
from fsr.data.voc import VocSource
from fsr.errors import UserError
from fsr.infer import main as infer
from fsr.train import main as train

LISTS = "ImageSets/Segmentation"
_OF_LOADING = ("checking", "writing", "images of", "fetching")  # lines of progress


class Answer(NamedTuple):
    """How a command ended, and all that it said."""

    code: int
    text: str

    def __contains__(self, words: object) -> bool:
        return str(words) in self.text


class Place:
    """A folder of one situation: `voc` and `coco` are small synthetic sets (24 + 2 and 6 + 2 images), without lists."""

    def __init__(self, folder: Path, voc: Path, coco: Path) -> None:
        self.folder, self._voc, self._coco = folder, voc, coco

    def another(self) -> "Place":
        """One with the same sets as they were."""
        (self.folder / "another").mkdir()
        return Place(self.folder / "another", self._voc, self._coco)

    @property
    def voc(self) -> Path:
        """The data folder in VOC's layout, copied when first asked for."""
        if not (self.folder / "voc").exists():
            as_real(shutil.copytree(self._voc, self.folder / "voc"))
            shutil.rmtree(self.folder / "voc/VOCdevkit/VOC2012/ImageSets/fsr")
        return self.folder / "voc"

    @property
    def coco(self) -> Path:
        """The same in COCO's."""
        if not (self.folder / "coco").exists():
            shutil.copytree(self._coco, self.folder / "coco")
            shutil.rmtree(self.folder / "coco/COCO/ImageSets")
        return self.folder / "coco"

    @property
    def root(self) -> Path:
        """VOC2012."""
        return self.voc / "VOCdevkit/VOC2012"

    def listed(self, name: str) -> list[str]:
        """The names in one of VOC's own lists."""
        return (self.root / LISTS / f"{name}.txt").read_text().split()

    def write_listed(self, name: str, names: list[str]) -> None:
        """One of VOC's own lists anew."""
        (self.root / LISTS / f"{name}.txt").write_text("".join(f"{name}\n" for name in names))

    def prepare(self, *flags: object) -> Answer:
        """`prepare voc`."""
        return asked(prepare, "voc", self.voc, *flags)

    def prepare_coco(self, *flags: object) -> Answer:
        """`prepare coco`."""
        return asked(prepare, "coco", self.coco, *flags)

    def train(self, *flags: object) -> Answer:
        """Two steps and one evaluation on VOC's layout."""
        tiny = [word for name, value in TINY.items() for word in (f"--{name}", value)]
        steps = ["--iterations", 2, "--eval_every", 2, "--log_every", 1]
        places = ["--data_folder", self.voc, "--run_folder", self.folder / "run"]
        return asked(train, "synthetic", *places, *tiny, *steps, *flags)

    def train_coco(self, *flags: object) -> Answer:
        """The same on COCO's layout."""
        tiny = [word for name, value in TINY.items() for word in (f"--{name}", value)]
        tiny += [
            "--backbone",
            "vit_tiny_patch16_224",
            "--pretrained",
            "none",
            "--patch_size",
            8,
            "--cam_scales",
            1.0,
            0.5,
        ]
        tiny += ["--iterations", 2, "--eval_every", 2, "--log_every", 1, "--ranks", 1, "--precision", "fp32"]
        places = ["--data_folder", self.coco, "--run_folder", self.folder / "run"]
        return asked(train, "coco", *places, *tiny, *flags)

    def infer(self, *flags: object) -> Answer:
        """An inference of the two images of val by a drawn network."""
        checkpoint = save_checkpoint(self.folder / "best.pt", tiny_config(self.voc))
        places = ["--checkpoint", checkpoint, "--data_folder", self.voc, "--output_folder", self.folder / "out"]
        return asked(infer, "synthetic", *places, "--workers", 0, *flags)

    def every_mask(self, change: Callable[[np.ndarray], Image.Image]) -> None:
        """Store each mask of VOC anew; `change` makes a picture of class ids [H, W]."""
        for place in ("SegmentationClass", "SegmentationClassAug"):
            for file in (self.root / place).glob("*.png"):
                change(np.array(Image.open(file))).save(file)

    def every_coco_mask(self, change: Callable[[np.ndarray], Image.Image]) -> None:
        """The same of COCO."""
        for file in (self.coco / "COCO/SegmentationClass").rglob("*.png"):
            change(np.array(Image.open(file))).save(file)

    def voc_source(self) -> VocSource:
        """VOC as commands open it."""
        return VocSource(self.voc)

    def coco_source(self) -> CocoSource:
        """COCO as commands open it."""
        return CocoSource(self.coco)


def asked(main: Callable[[list[str]], None], *arguments: object) -> Answer:
    """What a command answers. It ends well, or with code 2 and one sentence, and never shows a traceback."""
    said, errors, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(errors):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = int(end.code or 0)
    lines = [line for line in errors.getvalue().splitlines() if not line.startswith(_OF_LOADING)]
    assert "Traceback" not in errors.getvalue() and code in (0, 2), errors.getvalue()
    assert code == 0 or [line for line in lines if line.startswith("error: ")] == lines[-1:], errors.getvalue()
    return Answer(code, said.getvalue() + "\n".join(lines))


def tried(work: Callable[[], object]) -> Answer:
    """The same of a function of the program, whose mistakes are UserErrors."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            result = work()
    except UserError as error:
        assert "\n" not in str(error)
        return Answer(2, f"{said.getvalue()}error: {error}")
    return Answer(0, f"{said.getvalue()}{result or 'read'}")


@dataclass(frozen=True)
class Situation:
    """One line of the table."""

    row: int
    """Of the list of kinds that `ROWS` has."""
    name: str
    ask: Callable[[Place], Answer]
    """Makes the situation and asks a command."""
    wanted: str
    """What the answer must say."""
    refused: bool = False
    """Whether the command must end with code 2."""
    check: Callable[[Place], None] | None = None
    """What must hold beside the answer: right labels, right masks, nothing written."""
    slow: bool = True
    """Whether it takes more than a moment."""


ROWS = {
    1: "truth that is not",
    2: "truth of a split",
    3: "lists by subtraction",
    4: "tensors that a network does not have",
    5: "forms of pictures and XML",
    6: "COCO's JSON of exporters",
    7: "lists as people write them",
    8: "read-only data sets",
    9: "layouts as unzipped",
    10: "damaged pictures that decode",
    11: "small pictures",
    12: "weights without a network",
    13: "all truth ignored",
    14: "classes of one's own",
    15: "checkpoints away from home",
}
