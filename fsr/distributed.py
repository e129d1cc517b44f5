"""Ranks under torchrun. Every function is a no-op on one process."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor

from fsr import promised_gpu
from fsr.bounds import PORT, Bounds
from fsr.errors import LoaderError, LostLoaderError, SilentLoaderError, UnreadableError, UserError
from fsr.variables import whole_number

STORE_FILE = "FSR_STORE_FILE"  # the file through which ranks find each other, where torchrun would name host and port
SHARED: dict[str, type[UserError] | type[LoaderError]] = {
    kind.__name__: kind for kind in (UserError, UnreadableError, LoaderError, LostLoaderError, SilentLoaderError)
}
"""The errors of one rank that all ranks raise, by name."""
Json: TypeAlias = bool | int | float | str | list["Json"] | dict[str, "Json"] | None


def start() -> torch.device:
    """Join the process group, if there is one to join, and return this rank's device."""
    device = own_device()
    join()
    return device


def join() -> None:
    """Join the process group that the environment describes, if any: torchrun's, or STORE_FILE in place of its address.

    The backend is nccl for tensors on GPUs, one GPU a rank, and gloo for tensors on CPUs, which the ranks use to agree
    between steps. A rank that lacks its GPU says so first, or it would wait for ranks with another backend.
    """
    if "WORLD_SIZE" in os.environ and not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if own_device().type == "cuda" else "gloo"
        number, count = own_number()
        if STORE_FILE not in os.environ:
            whole_number("MASTER_PORT", None, PORT)
            if not os.environ.get("MASTER_ADDR"):
                raise UserError(
                    "the variable MASTER_ADDR must name the host of rank 0, as torchrun does, and is not set"
                )
            dist.init_process_group(backend)
            return
        file = os.environ[STORE_FILE]
        if os.path.lexists(file) and not os.path.isfile(file):
            raise UserError(f"the variable {STORE_FILE} must name a file, new or of the same ranks, and is {file}")
        store = dist.FileStore(file, count)  # type: ignore[attr-defined]
        store.set_timeout(dist.default_pg_timeout)  # as torch waits for the ranks of torchrun
        dist.init_process_group(backend, store=store, rank=number, world_size=count)


def own_number() -> tuple[int, int]:
    """Rank of this process, and the number of ranks, as the environment says; alone where it says nothing.

    Raises UserError for variables that cannot be.
    """
    count = whole_number("WORLD_SIZE", 1, Bounds(1, 10**6))
    return whole_number("RANK", None if count > 1 else 0, Bounds(0, count - 1)), count


def own_device() -> torch.device:
    """The GPU of this rank, or the CPU where there is none and none was asked for.

    Slurm may show each rank its own GPU alone, as number 0. Raises LostGpuError where the node lacks the GPU, UserError
    where torch has no GPUs at all or there are more ranks than GPUs.
    """
    if not torch.cuda.is_available():
        promise = promised_gpu.promise()
        if promise is not None:
            raise promised_gpu.none_visible(promise)
        return torch.device("cpu")
    alone = len(promised_gpu.visible() or ()) == 1
    number, seen = 0 if alone else whole_number("LOCAL_RANK", 0, Bounds(0, 10**6)), torch.cuda.device_count()
    if number >= seen:
        raise promised_gpu.none_of_its_own(number, seen)
    device = torch.device("cuda", number)
    torch.cuda.set_device(device)
    return device


def stop() -> None:
    """Leave the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def total(tensor: Tensor) -> Tensor:
    """The tensor summed over all ranks."""
    if world_size() == 1:
        return tensor
    tensor = tensor.clone()
    dist.all_reduce(tensor)
    return tensor


def mean(tensor: Tensor) -> Tensor:
    """The tensor averaged over all ranks."""
    return total(tensor) / world_size()


def gathered(tensor: Tensor) -> Tensor:
    """The tensors [n, ...] of all ranks one after the other, [ranks * n, ...]."""
    if world_size() == 1:
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(world_size())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


@torch.no_grad()
def average_gradients(network: torch.nn.Module) -> None:
    """Average a network's gradients over all ranks, each in its place in memory."""
    if world_size() == 1:
        return
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    flat = mean(torch.cat([gradient.flatten() for gradient in gradients]))
    means = torch.split(flat, [gradient.numel() for gradient in gradients])
    for gradient, new in zip(gradients, means, strict=True):
        gradient.copy_(new.view_as(gradient))


def any_rank(flag: bool) -> bool:
    """Whether the flag is raised on any rank; the same answer on all ranks. Waits for the ranks, not for their GPUs."""
    return bool(total(torch.tensor(int(flag)))) if world_size() > 1 else flag


def from_first(value: Json) -> Json:
    """Rank 0's value, on every rank. It travels as JSON, for to load a pickle is to run what another process sent."""
    return _from_rank(0, value)


def _from_rank(sender: int, value: Json) -> Json:
    if world_size() == 1:
        return value
    text = json.dumps(value).encode() if rank() == sender else b""
    size = torch.tensor(len(text))
    dist.broadcast(size, src=sender)
    content = (
        torch.frombuffer(bytearray(text), dtype=torch.uint8) if text else torch.empty(int(size), dtype=torch.uint8)
    )
    dist.broadcast(content, src=sender)
    received: Json = json.loads(content.numpy().tobytes())
    return received


def wait_for_all() -> None:
    """Return when all ranks have come here: what one of them wrote before is there for all."""
    any_rank(False)


@contextmanager
def shared_errors() -> Iterator[None]:
    """A UserError or LoaderError that a rank raises inside, raised on all ranks in its class; all have to come here.

    Without it the other ranks would wait for that rank, and die of its end instead of its error.
    """
    own: UserError | LoaderError | None = None
    try:
        yield
    except (UserError, LoaderError) as error:
        own = error
    if not any_rank(own is not None):
        return
    known = own and next(kind for kind in type(own).__mro__ if kind.__name__ in SHARED)
    problem: Json = [known.__name__, str(own)] if known else None
    said = [_from_rank(sender, problem) for sender in range(world_size())]
    kind, sentence = next(problem for problem in said if isinstance(problem, list))
    raise SHARED[str(kind)](str(sentence)) from own
