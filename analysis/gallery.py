"""One picture of what a trained network sees: `fsr gallery --run RUN_FOLDER --out gallery.png`."""

if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # this checkout, whatever Python it is
    from fsr import beginning

    beginning.begin("gallery", torch=True)

import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from PIL import Image

from fsr.bounds import Bounded, Bounds
from fsr.command import parse_flags
from fsr.errors import UserError, reports_user_errors
from fsr.files import atomic_file
from fsr.run import Run
from fsr.writable import check_file


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


@reports_user_errors
def main(arguments: list[str] | None = None) -> None:
    """Draw and save."""
    options = parse_flags(Options, "gallery", arguments)
    if options.out.suffix.lower() != ".png":
        raise UserError(f"--out must be a PNG file, NAME.png, got {options.out}")
    check_file(options.out, "--out")
    # Here, for torch takes seconds, which --help does not wait for.
    import torch

    from fsr.checkpoint import load_network
    from fsr.data.loaders import evaluation_images
    from fsr.data.source import open_source
    from fsr.pictures import draw, pixels_of, with_titles

    network, config = load_network(Run(options.run).best_file)
    config = replace(config, data_folder=options.data_folder or config.data_folder, workers=0)
    source = open_source(config.dataset, config.data_folder, config.list_folder, config.num_classes)
    there = len(source.items(config.val_set))
    if options.first >= there:
        raise UserError(f"--first must be below {there}, the images of list {config.val_set}, got {options.first}")
    samples = evaluation_images(config, source, config.val_set, 0, 1)
    rows = itertools.islice(samples, options.first, options.first + options.images)
    pictures = [draw(network, sample, config, torch.device("cpu")) for sample in rows]
    pixels = pixels_of(with_titles(torch.cat(pictures, dim=1)))
    with atomic_file(options.out) as file:
        Image.fromarray(pixels.numpy()).save(file, "PNG")
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
