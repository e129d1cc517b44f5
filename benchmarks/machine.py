"""What a result must name: the hardware, the versions, the date and the command."""

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch


def machine() -> dict[str, str | int]:
    """Hardware, versions, date and command of this run."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "command": " ".join(["python", *sys.argv]),
    }


def seconds(work: Callable[[], object]) -> float:
    """The time that a call takes."""
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def interleaved(kinds: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each kind of work, the kinds taking turns so that what else the machine does meets all of them."""
    for work in kinds.values():
        work()
    times = {name: [] for name in kinds}
    for _ in range(repeats):
        for name, work in kinds.items():
            times[name].append(seconds(work))
    return times


def medians(times: dict[str, list[float]]) -> dict[str, float]:
    """The median time of each kind."""
    return {name: statistics.median(values) for name, values in times.items()}
