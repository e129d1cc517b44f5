"""Times of a device's work, and of the kernels that it is made of."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.size import Size


def synchronise(size: Size) -> None:
    """Wait until the device has done all that was asked of it."""
    if size.on_gpu:
        torch.cuda.synchronize()


def seconds(work: Callable[[], object], size: Size) -> float:
    """Seconds until the device has done the work."""
    synchronise(size)
    started = time.perf_counter()
    work()
    synchronise(size)
    return time.perf_counter() - started


def times(work: Callable[[], object], size: Size, repeats: int | None = None, warm: int = 2) -> dict[str, float]:
    """Median milliseconds of the work, the least and the most, and those that the host took to ask for it."""
    for _ in range(warm):
        work()
    synchronise(size)
    whole, host = [], []
    for _ in range(repeats or size.repeats):
        started = time.perf_counter()
        work()
        host.append(1e3 * (time.perf_counter() - started))
        synchronise(size)
        whole.append(1e3 * (time.perf_counter() - started))
    found = {
        "ms": statistics.median(whole),
        "least": min(whole),
        "most": max(whole),
        "host_ms": statistics.median(host),
    }
    return {name: round(value, 3) for name, value in found.items()}


def kernels(work: Callable[[], object], size: Size, top: int = 0) -> dict[str, Any]:
    """The kernels of one call: how many, their milliseconds together, and the costliest. Nothing on a CPU."""
    if not size.on_gpu:
        return {}
    synchronise(size)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        work()
        synchronise(size)
    # Operators carry their kernels' time as well; only what ran on the device counts.
    events = [event for event in profiled.key_averages() if event.device_type == DeviceType.CUDA]
    events.sort(key=lambda event: -event.self_device_time_total)
    found: dict[str, Any] = {
        "launches": sum(event.count for event in events),
        "kernels_ms": round(sum(event.self_device_time_total for event in events) / 1e3, 3),
    }
    if top:
        found["top"] = [f"{e.self_device_time_total / 1e3:.2f} ms, {e.count} × {e.key[:110]}" for e in events[:top]]
    return found


def peak_gb(size: Size) -> dict[str, float]:
    """Most memory since the last call, in 10⁹ bytes. Nothing on a CPU."""
    if not size.on_gpu:
        return {}
    peak = torch.cuda.max_memory_allocated() / 1e9
    torch.cuda.reset_peak_memory_stats()
    return {"peak_gb": round(peak, 2)}
