"""Copies between the host and a GPU for which neither waits: through page-locked memory, in the order of the work."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def uploaded(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on the device."""
    return tensor.contiguous().pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def download(nested: T) -> Callable[[], T]:
    """Begin to copy tensors to the host, as nested in tuples, lists and dicts; call the result to wait for them.

    Tensors that are on the host already stay as they are.
    """
    gpus: set[torch.device] = set()

    def begun(tensor: Tensor) -> Tensor:
        if tensor.device.type != "cuda":
            return tensor
        gpus.add(tensor.device)
        return torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor, non_blocking=True)

    copies: T = _each(nested, begun)
    arrivals = [torch.cuda.current_stream(gpu).record_event(_passing()) for gpu in gpus]

    def wait() -> T:
        for arrival in arrivals:
            arrival.synchronize()
        return copies

    return wait


def _passing() -> torch.cuda.Event:
    """An event that a thread waits for asleep, so that another one has its core."""
    return torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # torch gives it no types


def _each(nested: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(nested, Tensor):
        return change(nested)
    if isinstance(nested, dict):
        return {key: _each(value, change) for key, value in nested.items()}
    if isinstance(nested, list):
        return [_each(value, change) for value in nested]
    if isinstance(nested, tuple):
        values = [_each(value, change) for value in nested]
        return type(nested)(*values) if hasattr(nested, "_fields") else tuple(values)
    return nested
