"""What a training run costs, before it is started: `fsr cost voc [any flag of fsr train]`."""

if __name__ == "__main__":
    from fsr import beginning

    beginning.begin("cost", torch=True)
    from fsr.command import help_first
    from fsr.cost_options import parse

    help_first(parse)

import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rich.table import Table

from fsr.config import TrainConfig
from fsr.console import console
from fsr.cost_options import Options, parse
from fsr.errors import reports_user_errors
from fsr.flops import blocks, inference_flops, kinds_of_steps, mean_flops, parameters, step_flops
from fsr.gpu_hours import PEAKS, GpuWork, micro_batch_ms
from fsr.measure import Measured, measure_inference, measure_training

TERA = 1e12


class Cost(NamedTuple):
    """What is counted of a run and of its network's inference. Operations are those of products."""

    parameters: dict[str, int]
    """By part of a network."""
    parts: dict[str, int]
    """Operations of a step of all micro-batches, by part; of the kind that the run has most."""
    step: float
    """Operations of a step, in the mean over the run."""
    run: float
    """Operations of all steps."""
    inference: dict[float, int]
    """Operations of an image by scale, its flip included."""
    gpu_hours: dict[str, float]
    """Of all steps, by GPU, by the arithmetic of fsr/gpu_hours.py."""


def cost_of(config: TrainConfig, size: tuple[int, int], scales: tuple[float, ...]) -> Cost:
    """What a run costs, and an inference of an image of `size` (width, height), counted without computing anything."""
    steps = kinds_of_steps(config)
    by_step = step_flops(config, steps)
    most = max(steps, key=lambda step: steps[step])
    mean = config.ranks * mean_flops(by_step, steps)
    counted = parameters(config)
    return Cost(
        parameters=counted,
        parts={part: config.ranks * flops for part, flops in by_step[most].items()},
        step=mean,
        run=mean * config.iterations,
        inference=inference_flops(config, size, scales),
        gpu_hours={gpu: _hours(gpu, config, by_step, steps) for gpu in PEAKS},
    )


def _hours(gpu: str, config: TrainConfig, by_step: Mapping[int, Mapping[str, int]], steps: Mapping[int, int]) -> float:
    work = GpuWork(config.precision, config.compile, config.graphs, blocks(config))
    tflop = {step: sum(parts.values()) / TERA for step, parts in by_step.items()}
    milliseconds = sum(count * config.ranks * micro_batch_ms(gpu, tflop[step], work) for step, count in steps.items())
    return milliseconds / 3_600_000


def counted_tables(config: TrainConfig, options: Options, cost: Cost) -> list[Table]:
    """What was counted, for a terminal."""
    network = _table("Parameters of a network (student and teacher have one each)", "part", "million")
    for name, count in cost.parameters.items():
        network.add_row(name, _number(count / 1e6))
    network.add_row("all", _number(sum(cost.parameters.values()) / 1e6), style="bold")

    images, whole = config.ranks * config.batch_size, sum(cost.parts.values())
    step = _table(f"A training step: {images} images of {config.crop_size}²", "part", "TFLOP", "share")
    for part, flops in cost.parts.items():
        step.add_row(part, _number(flops / TERA), f"{flops / whole:.1%}")
    step.add_row("all", _number(whole / TERA), "", style="bold")
    step.add_row(f"mean over {config.iterations:,} steps", _number(cost.step / TERA), "")

    width, height = options.image_size
    infer = _table(f"Inference of an image of {width} × {height}, each scale with its flip", "scale", "TFLOP")
    for scale, flops in cost.inference.items():
        infer.add_row(f"{scale:g}", _number(flops / TERA))
    infer.add_row("all", _number(sum(cost.inference.values()) / TERA), style="bold")
    return [network, step, infer]


def measured_table(training: Measured, inference: Measured) -> Table:
    """What was measured here."""
    table = _table(f"Measured here: {training.device}", "work", "images/s", "peak memory, GB")
    for name, one in (("training, a micro-batch at a time", training), ("inference, the network alone", inference)):
        table.add_row(name, _number(one.images_per_s), f"{one.peak_gb:.2f}")
    return table


def hours_table(config: TrainConfig, cost: Cost, here: Measured | None) -> Table:
    """Hours of the whole schedule, as measured here, and on other devices."""
    table = _table(f"{config.iterations:,} steps, without evaluations", "device", "GPU-hours", "how it is known")
    table.columns[2].justify = "left"
    if here:
        hours = config.iterations * config.ranks * config.batch_size / here.images_per_s / 3600
        table.add_row("this one", _number(hours), f"measured here: {_number(here.images_per_s)} images/s")
    for gpu, hours in cost.gpu_hours.items():
        how = "arithmetic from what was measured on one" if gpu == "H100" else "arithmetic: the H100's, by peak TFLOP/s"
        table.add_row(gpu, _number(hours), how)
    return table


def _table(title: str, first: str, *numbers: str) -> Table:
    table = Table(first, *numbers, title=title, min_width=len(title))
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _number(value: float) -> str:
    """Four digits of a number, or all before its point."""
    return f"{value:.4g}" if value < 1000 else f"{value:,.0f}"


@reports_user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """`fsr cost`: counts, then measures, and prints."""
    config, options = parse(sys.argv[1:] if arguments is None else arguments)
    out = console()
    cost = cost_of(config, options.image_size, options.scales)
    for table in counted_tables(config, options, cost):
        out.print(table)
    here = None
    if options.measure:
        print("measuring here; --no-measure leaves it out", file=sys.stderr)
        # In this order: a process without a GPU tells the most memory that it has taken so far.
        inferred = measure_inference(config, options.image_size, options.scales, options.images)
        here = measure_training(config)
        out.print(measured_table(here, inferred))
    out.print(hours_table(config, cost, here))
    graphs = "as CUDA graphs" if config.graphs else "without graphs, so that the host may be the bottleneck (--graphs)"
    print(f"Other devices compute in {config.precision}, {graphs}; what is assumed: docs/training.md, Costs.")


if __name__ == "__main__":
    main()
