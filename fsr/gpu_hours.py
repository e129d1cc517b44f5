"""How long a micro-batch takes on GPUs that are not here: arithmetic from what was measured on one, and from vendors'.

Measured on an NVIDIA H100 80GB HBM3 (docs/results.md, "On a GPU", 2026-11-26): a step of ViT-B/16 at 448 pixels on 2
and 8 images, which has 6.8 and 27.2 TFLOP. Replayed as a CUDA graph it takes a constant, and a time for each TFLOP:
the two tell them. Without graphs the host launches the kernels one by one, and the device waits where it is faster.

Assumed: the time for a TFLOP grows as the vendor's peak in that precision falls; the constant and the host stay; the
host's time grows with the number of blocks. So hours of other GPUs are estimates.
"""

from typing import NamedTuple

from fsr.arithmetic import Precision

HOST_MS = 150.0
"""Of a micro-batch without graphs, for BLOCKS blocks: tf32 and bf16 at batch 2 alike."""
BLOCKS = 12


class Line(NamedTuple):
    """Milliseconds of a micro-batch: `constant` and `each` for a TFLOP."""

    constant: float
    each: float

    @classmethod
    def through(cls, at_2: float, at_8: float) -> "Line":
        """The line through what was measured with 2 and 8 images."""
        each = (at_8 - at_2) / (TFLOP[8] - TFLOP[2])
        return cls(at_2 - each * TFLOP[2], each)


TFLOP = {2: 6.803, 8: 27.212}  # by images
# By precision, and whether the encoder's blocks are compiled.
H100_LINES: dict[tuple[Precision, bool], Line] = {
    ("fp32", False): Line(0.0, 731 / TFLOP[8]),  # measured with 8 images alone
    ("fp32", True): Line(0.0, 731 / TFLOP[8]),
    ("tf32", False): Line.through(58, 186),
    ("tf32", True): Line.through(54, 168),
    ("bf16", False): Line.through(39, 117),
    ("bf16", True): Line.through(35, 96),
}
# TFLOP/s of dense products, as the vendor's data sheets say (SXM boards; the 3090 with float32 sums).
PEAKS: dict[str, dict[Precision, float]] = {
    "H100": {"fp32": 67, "tf32": 495, "bf16": 989},
    "A100": {"fp32": 19.5, "tf32": 156, "bf16": 312},
    "RTX 3090": {"fp32": 35.6, "tf32": 35.6, "bf16": 71},
}


class GpuWork(NamedTuple):
    """How a run computes."""

    precision: Precision
    compiled: bool
    graphs: bool
    blocks: int
    """Of its encoder."""


def micro_batch_ms(gpu: str, tflop: float, work: GpuWork) -> float:
    """Milliseconds of a micro-batch of so many TFLOP on one of PEAKS."""
    line = H100_LINES[work.precision, work.compiled]
    slower = PEAKS["H100"][work.precision] / PEAKS[gpu][work.precision]
    device = line.constant + line.each * tflop * slower
    return device if work.graphs else max(device, HOST_MS * work.blocks / BLOCKS)
