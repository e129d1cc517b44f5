"""Writing in the background, so that training goes on meanwhile."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch


class BackgroundWriter:
    """Does one piece of writing at a time, in a thread of its own. What it raises comes up in the calling thread."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "writer")
        self._pending: Future[None] | None = None

    def write(self, work: Callable[[], None]) -> None:
        """Start `work`, after what was started before. Raises what that raised."""
        self.wait()
        self._pending = self._thread.submit(work)

    def check(self) -> None:
        """Raise what the writing raised, if it has ended; does not wait."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Return when everything is written. Raises what the writing raised."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Let what was started come to its end, and raise nothing: something else has gone wrong already."""
        self._thread.shutdown()


def host_copy(state: Any) -> Any:
    """A copy of nested dictionaries and lists whose tensors lie in host memory.

    From a GPU the copies are only queued: call `torch.cuda.synchronize` or wait for an event before reading them.
    """
    if isinstance(state, torch.Tensor):
        copy = torch.empty_like(state, device="cpu", pin_memory=state.is_cuda)
        return copy.copy_(state, non_blocking=True)
    if isinstance(state, dict):
        return {name: host_copy(value) for name, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(host_copy(value) for value in state)
    return state
