"""Applies a function to a long stream on all cores, holding only a few elements in memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


def bounded_map(work: Callable[[T], R], elements: Iterable[T], workers: int, waiting: int = 1) -> Iterator[R]:
    """Yield `work` of each element in the order of `elements`. `workers` elements are worked on at a time.

    At most `waiting` more elements are taken from `elements` in advance, so a whole data set may pass through. The
    iterator `elements` runs in the caller's thread, beside the workers. Each worker uses one thread of torch: more
    would compete with the other workers for the cores.
    """
    threads = torch.get_num_threads()
    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            for element in elements:
                pending.append(pool.submit(work, element))
                if len(pending) >= workers + waiting:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)  # what a pool's thread sets is also what later threads start with
