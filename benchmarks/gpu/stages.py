"""The stages, in their order, each with the seconds that it may take."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from benchmarks.gpu import operators, runs, step
from benchmarks.gpu.size import Row, Size


class Stage(NamedTuple):
    """Rows that are measured in one process."""

    name: str
    rows: Callable[[Size], Iterable[Row]]
    limit_s: float


# What is short and what decides most comes first.
STAGES = (
    Stage("machine", operators.machine, 60),
    Stage("operators' equality", operators.equality, 60),
    Stage("attention's bits", step.attention_bits, 40),
    Stage("step's bits", step.bits, 120),
    Stage("resume's bits", runs.resume, 100),
    Stage("ranks", runs.on_all_gpus, 90),
    Stage("operators' speed", operators.speed, 60),
    Stage("step's speed", step.speed, 220),
    Stage("inference", runs.inference, 120),
    Stage("input", runs.stalls, 90),
)
