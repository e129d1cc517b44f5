"""The flags of `fsr gallery`. Imports no torch, so that its help page is there at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fsr.bounds import Bounded, Bounds


@dataclass(frozen=True)
class Options(Bounded):
    """Draw validation images, one a row: image, CAMs, mask, pseudo label, prediction, ground truth.

    Examples:
        --run runs/voc --out gallery.png
        --run runs/mask_ratio/trial_0000 --out gallery.png --images 8 --first 100
    """

    run: Path
    """Run folder with a best.pt."""
    out: Path
    """PNG file to write, NAME.png."""
    images: Annotated[int, Bounds(1, 1000)] = 4
    """Rows."""
    first: Annotated[int, Bounds(0, 10**9)] = 0
    """Number of the first image in the validation list."""
    data_folder: Path | None = None
    """Where the data lies now; by default where the run found it."""
