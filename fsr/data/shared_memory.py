"""The shared memory through which loader workers hand over what they load: is there enough of it, before they start?"""

import errno
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from fsr.errors import UnreadableError

FOLDER = Path("/dev/shm")
PREFETCHED = 2  # elements that each worker loads ahead (torch's default)
SEMAPHORES, SEMAPHORES_OF_WORKER = 8, 3  # of torch's queues and its event; each takes a page
PAGE = os.sysconf("SC_PAGE_SIZE")  # bytes
LARGE = 64_000_000  # bytes; an evaluation image of 4000 x 4000 levels has fewer
REMEDY = "give fewer --workers (0 needs none), or make it larger (docker run --shm-size, mount -o remount,size=…)"


def check_shared_memory(workers: int, element_bytes: int, what: str) -> None:
    """Raise UserError if the elements that `workers` load ahead, the one in use and their semaphores have no room.

    Under torchrun the ranks of a machine share it.
    """
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE") or 1)
    pages = SEMAPHORES + SEMAPHORES_OF_WORKER * workers
    need, free = ranks * (elements(workers) * element_bytes + pages * PAGE), free_bytes()
    if workers and free is not None and need > free:
        raise UnreadableError(
            f"{workers} loader workers need {need / 1e6:,.1f} MB of shared memory for {what}, "
            f"and {FOLDER} has {free / 1e6:,.1f} MB free; {REMEDY}"
        )


def check_for_elements_of(dataset: Any, workers: int) -> None:
    """The same for a dataset whose elements have sizes of their own; looks at the first one where room is scarce."""
    free = free_bytes()
    if workers and len(dataset) and free is not None and free < elements(workers) * LARGE:
        check_shared_memory(workers, bytes_of(dataset[0]), "pictures like the first one")


def elements(workers: int) -> int:
    """How many elements may be there at a time."""
    return PREFETCHED * workers + 1


def free_bytes() -> int | None:
    """Bytes of shared memory that are free; None where this machine has no folder of it."""
    return shutil.disk_usage(FOLDER).free if FOLDER.is_dir() else None


def bytes_of(element: Any) -> int:
    """Bytes of the tensors in an element."""
    if isinstance(element, torch.Tensor):
        return element.nbytes
    if isinstance(element, dict):
        element = element.values()
    return sum(map(bytes_of, element)) if isinstance(element, Iterable) and not isinstance(element, str) else 0


def is_full(error: BaseException) -> bool:
    """Whether an error of handing an element over means that there is no shared memory left."""
    return getattr(error, "errno", None) == errno.ENOSPC or os.strerror(errno.ENOSPC) in str(error)


def full(workers: int) -> UnreadableError:
    """That the shared memory ran out while `workers` used it."""
    free = free_bytes() or 0
    return UnreadableError(
        f"shared memory is full: {workers} loader workers need more of {FOLDER} than it has "
        f"({free / 1e6:,.1f} MB are free now); {REMEDY}"
    )
