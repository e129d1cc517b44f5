"""What a checkpoint costs: the step loop's stall, the writing behind it, and a stop, which writes without a copy.

    python benchmarks/checkpoint.py --folder DIR

The paper's settings for VOC (ViT-B at 448 pixels) with AdamW's state; medians. Steps continue while a checkpoint is
written, so a run pays for the stall alone, once every `save_every` steps. The same bytes written alone are what
the disk allows. All take turns, so that what else the machine does meets all of them. The last line is JSON.
"""

import json
import os
import statistics
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro
from machine import machine, seconds

from fsr.checkpoint import TrainState
from fsr.config import voc
from fsr.run import Run


@dataclass(frozen=True)
class Options:
    """Time a checkpoint."""

    folder: Path = Path(tempfile.gettempdir())
    """On the disk to write to."""
    repeats: int = 5
    """Times that each is measured."""
    threads: int = len(os.sched_getaffinity(0))
    """Of torch."""


def main() -> None:
    """Measure and print."""
    options = tyro.cli(Options)
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = replace(voc(), pretrained="none")
    state = TrainState(config, device)
    for parameter in state.student.parameters():
        parameter.grad = torch.zeros_like(parameter)
    state.optimizer.step()
    state.optimizer.zero_grad()

    stalls, writes, stops, copies = [], [], [], []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        run = Run(Path(folder))
        for _ in range(options.repeats):
            kept = []
            stalls.append(seconds(lambda kept=kept: kept.append(state.snapshot())))
            writes.append(seconds(lambda kept=kept: kept[0](run)))
            kept.clear()
            stops.append(seconds(lambda: state.save(run)))
            content = run.checkpoint_file.read_bytes()
            copies.append(seconds(lambda content=content: write_through(Path(folder) / "copy", content)))
            del content
        size = run.checkpoint_file.stat().st_size
    stall, write, stop, copy = map(statistics.median, (stalls, writes, stops, copies))
    print(
        f"{size / 2**20:.0f} MB: stall {stall:.2f} s, written in {write:.2f} s behind it; stop {stop:.2f} s, at most "
        f"{max(stops):.2f} s (the same bytes alone: {copy:.2f} s)"
    )
    shortest = stall / (0.01 * config.save_every)
    print(f"the stall is below 1 % of a run whose steps take more than {shortest:.2f} s, at one in {config.save_every}")
    result = {
        "stall_s": stall,
        "write_s": write,
        "stop_s": stop,
        "longest_stop_s": max(stops),
        "bytes_alone_s": copy,
        "size_mb": size / 2**20,
    }
    print(json.dumps({name: round(value, 3) for name, value in result.items()} | machine()))


def write_through(file: Path, content: bytes) -> None:
    """Write to the disk itself."""
    with open(file, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


if __name__ == "__main__":
    main()
