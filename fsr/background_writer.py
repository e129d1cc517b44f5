"""Writes in the background while training continues."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch


class BackgroundWriter:
    """Runs one piece of writing at a time in a thread of its own, and raises its errors in the calling thread."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "writer")
        self._pending: Future[None] | None = None

    def write(self, work: Callable[[], None]) -> None:
        """Wait for the writing before this one, raise its error if it had one, and start `work`."""
        self.wait()
        self._pending = self._thread.submit(work)

    def check(self) -> None:
        """Raise the error of a writing that has ended. Does not wait for one that has not."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Return when everything is written. Raises the error of the writing."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Wait for the writing and hide its error: the caller is already handling another one."""
        self._thread.shutdown()


def host_copy(state: Any) -> Any:
    """A copy of nested dictionaries and lists, with every tensor in host memory.

    Copies from a GPU are only queued: synchronise or wait for an event before you read them.
    """
    if isinstance(state, torch.Tensor):
        copy = torch.empty_like(state, device="cpu", pin_memory=state.is_cuda)
        return copy.copy_(state, non_blocking=True)
    if isinstance(state, dict):
        return {name: host_copy(value) for name, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(host_copy(value) for value in state)
    return state
