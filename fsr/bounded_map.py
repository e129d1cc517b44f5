"""Work on a long stream with all cores, a few elements at a time."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

T, R = TypeVar("T"), TypeVar("R")


def bounded_map(work: Callable[[T], R], elements: Iterable[T], workers: int, waiting: int = 1) -> Iterator[R]:
    """`work` of each element in its order, `workers` at a time; at most `waiting` more are taken from `elements`.

    So a whole data set may pass through. Whatever makes the elements runs in the caller's thread, beside the work on
    those before. Each worker has one thread of torch: more would compete with the other workers for the cores.
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
