"""One picture of what a trained network sees: `fsr gallery --run RUN_FOLDER --out gallery.png`."""

if __name__ == "__main__":
    import sys
    from functools import partial
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # this checkout, whatever Python it is
    from fsr import beginning

    beginning.begin("gallery", torch=True)
    from analysis.gallery_options import Options
    from fsr.command import help_first, parse_flags

    help_first(partial(parse_flags, Options, "gallery"))

import itertools
from dataclasses import replace

import torch
from PIL import Image

from analysis.gallery_options import Options
from fsr.checkpoint import load_network
from fsr.command import parse_flags
from fsr.data.loaders import evaluation_images
from fsr.data.source import open_source
from fsr.errors import UserError, reports_user_errors
from fsr.files import atomic_file
from fsr.pictures import draw, pixels_of, with_titles
from fsr.run import Run
from fsr.writable import check_file


@reports_user_errors
def main(arguments: list[str] | None = None) -> None:
    """Draw and save."""
    options = parse_flags(Options, "gallery", arguments)
    if options.out.suffix.lower() != ".png":
        raise UserError(f"--out must be a PNG file, NAME.png, got {options.out}")
    check_file(options.out, "--out")
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
