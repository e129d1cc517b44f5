"""Prefetches the batches of a run to its device, and measures how long the device waited for them."""

import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import torch

from fsr.data.device_views import Drawn, on_device
from fsr.step import Batch


class Prefetcher:
    """Iterates over the loader's batches as `Batch`es on the device.

    On a GPU the prefetcher copies the next batch and finishes its views on a separate stream while the step before
    still runs. The host only queues that step, so it can wait for the loader while the device is busy.
    """

    def __init__(self, batches: Iterator[dict[str, Any]], device: torch.device) -> None:
        self.device = device
        self._batches = iter(batches)
        self._on_gpu = device.type == "cuda"
        self._copies = torch.cuda.Stream(device) if self._on_gpu else None  # type: ignore[no-untyped-call]  # torch
        self._waits: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()  # of steps still to run on the GPU
        self._waited_s = 0.0

    def next(self) -> Batch:
        """The next batch; StopIteration after the last. Raises UserError if an image cannot be read."""
        if not self._on_gpu:
            started = time.perf_counter()
            loaded = next(self._batches)
            self._waited_s += time.perf_counter() - started
            return as_batch(loaded, self.device)
        compute = torch.cuda.current_stream(self.device)
        asked, ready = _timer(), _timer()
        asked.record(compute)  # passes when the step before is done
        loaded = next(self._batches)
        with torch.cuda.stream(self._copies):
            batch = as_batch(loaded, self.device)
            ready.record()
        compute.wait_event(ready)
        for tensor in (*batch[:3], *batch.local_crops):
            tensor.record_stream(compute)  # else its memory could be reused before the step has read it
        self._add_passed_waits()  # also on ranks that nobody asks for them, or they would pile up
        self._waits.append((asked, ready))
        return batch

    def waited_s(self) -> float:
        """Seconds since the last call in which the device waited for a batch. Synchronises with the device."""
        if self._on_gpu:
            torch.cuda.synchronize(self.device)
            self._add_passed_waits()
        waited, self._waited_s = self._waited_s, 0.0
        return waited

    def _add_passed_waits(self) -> None:
        """Count the waits that are over, without waiting for the others."""
        while self._waits and all(event.query() for event in self._waits[0]):  # type: ignore[no-untyped-call]  # torch
            asked, ready = self._waits.popleft()
            self._waited_s += max(0.0, asked.elapsed_time(ready)) / 1000


def as_batch(loaded: dict[str, Any], device: torch.device) -> Batch:
    """A loader's batch on the device. The host counts the classes here, so it need not ask the device later."""
    view1, view2 = (_view(loaded[name], device) for name in ("view1", "view2"))
    labels, *local_crops = (
        tensor.to(device, non_blocking=True) for tensor in (loaded["labels"], *loaded["local_crops"])
    )
    return Batch(view1, view2, labels, local_crops, int(loaded["labels"].sum(1).max()))


def _timer() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch gives it no types


def _view(loaded: torch.Tensor | Drawn, device: torch.device) -> torch.Tensor:
    return on_device(loaded, device) if isinstance(loaded, Drawn) else loaded.to(device, non_blocking=True)
