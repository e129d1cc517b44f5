"""The flags of `fsr cost`. Imports no torch, so that its help page is there at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from fsr.bounds import COUNT, Bounds, check_bounds
from fsr.command import parse_preset
from fsr.config import TrainConfig


@dataclass(frozen=True)
class Options:
    """Count parameters and operations of a training run and of an inference; and the hours on some GPUs, by arithmetic.

    Images per second and peak memory are measured on this machine. Any flag of fsr train may follow. It needs no data.

    Examples:
        --no-measure
        --batch_size 8 --ranks 1 --precision bf16 --graphs
    """

    # Costs
    measure: bool = True
    """Measure a training step and an inference on this machine, which takes a minute or two on a CPU."""
    image_size: Annotated[tuple[int, int], Bounds(1, 20_000)] = (500, 375)
    """Width and height of the image that is inferred; those of most of VOC's."""
    scales: Annotated[tuple[float, ...], Bounds(0.1, 4.0)] = (1.0, 1.25, 1.5)
    """Scales of the inference; each scale runs with and without horizontal flip."""
    images: Annotated[int, COUNT] = 1
    """Images that are inferred at once where it is measured."""

    def __post_init__(self) -> None:
        check_bounds(type(self), vars(self), "--")


@dataclass(frozen=True)
class Command:
    """What is trained, and how it is looked at."""

    config: tyro.conf.OmitArgPrefixes[TrainConfig]
    options: tyro.conf.OmitArgPrefixes[Options]


def parse(arguments: Sequence[str]) -> tuple[TrainConfig, Options]:
    """What is trained, and how it is looked at. Raises UserError for a value that is not allowed."""
    read = parse_preset(Command, "cost", arguments, Options.__doc__ or "", lambda preset: Command(preset, Options()))
    return read.config, read.options
