"""CUDA graphs: a GPU's work for a micro-batch, recorded once and replayed."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor


class Graphs:
    """Records one graph for each kind of micro-batch. Within a kind, only what the inputs hold may differ.

    The first of a kind runs as it is: libraries start, tables that are kept are made. The second is recorded. Whatever
    the work changes in place (gradients, buffers) has to stay where it is in memory. Results and their bits are those
    of the work itself: random draws start from the seed that is set before the call, replayed or not.
    """

    def __init__(self) -> None:
        self._recorded: dict[Hashable, _Recorded | None] = {}
        self._memory: Any = torch.cuda.graph_pool_handle()  # one for all graphs: they never run at the same time

    def run(self, kind: Hashable, work: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Tensor:
        """The result of `work(*inputs)`; it holds until the next call."""
        if kind not in self._recorded:
            self._recorded[kind] = None
            return work(*inputs)
        recorded = self._recorded[kind]
        if recorded is None:
            recorded = self._recorded[kind] = _Recorded(work, inputs, self._memory)
        return recorded.replay(inputs)


class _Recorded:
    def __init__(self, work: Callable[..., Tensor], inputs: Sequence[Tensor], memory: Any) -> None:
        self.inputs = [tensor.clone() for tensor in inputs]
        self.graph = torch.cuda.CUDAGraph()
        # Other threads write checkpoints and pin batches meanwhile.
        with torch.cuda.graph(self.graph, pool=memory, capture_error_mode="thread_local"):
            self.result = work(*self.inputs)

    def replay(self, inputs: Sequence[Tensor]) -> Tensor:
        for own, new in zip(self.inputs, inputs, strict=True):
            own.copy_(new)
        self.graph.replay()
        return self.result
