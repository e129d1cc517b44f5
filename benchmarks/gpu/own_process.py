"""A stage in a process of its own: a GPU that is lost to an error, a crash or a hang costs no other stage anything."""

import contextlib
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.size import Size
from benchmarks.gpu.stages import Stage

# Torch is imported once, and no GPU is touched before the fork.
_PROCESSES = multiprocessing.get_context("fork")


def run(
    stage: Stage, size: Size, done: set[str], limit_s: float, log: Path, tell: Callable[[str, dict[str, Any]], None]
) -> str | None:
    """Measure the rows that are not done, `tell` each at once. The row at which `limit_s` was over, if it came to that.

    A row that fails has the field `failed`, and the next one goes on. One that its process does not survive too.
    """
    receiver, sender = _PROCESSES.Pipe(duplex=False)
    process = _PROCESSES.Process(target=_measure, args=(stage, size, done, log, sender))
    process.start()
    sender.close()
    deadline, begun, late = time.monotonic() + limit_s, stage.name, True
    while receiver.poll(max(0.0, deadline - time.monotonic())):
        try:
            name, row = receiver.recv()
        except EOFError:
            process.join()
            late = False
            break
        begun = name
        if row is not None:
            tell(name, row)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # also what it started
    process.join()
    if not late and process.exitcode:
        tell(begun, {"failed": f"its process ended with {process.exitcode}"})
    return begun if late else None


def _measure(stage: Stage, size: Size, done: set[str], log: Path, sender: Connection) -> None:
    os.setsid()
    with open(log, "a") as file:  # what torch, torchrun and training say
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    if not size.on_gpu:
        torch.set_num_threads(1)  # the work is tiny, and others are at work here
    name = stage.name
    try:
        for name, measure in stage.rows(size):
            if name in done:
                continue
            sender.send((name, None))
            try:
                row = measure()
            except Exception as error:
                row = {"failed": _told(error)}
            sender.send((name, row))
            if size.on_gpu:
                with contextlib.suppress(RuntimeError):  # a lost GPU
                    torch.cuda.empty_cache()
    except Exception as error:
        sender.send((name, {"failed": _told(error)}))
    sender.close()
    os._exit(0)  # whatever still lives in here


def _told(error: Exception) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(where.filename).name}:{where.lineno}: {str(error)[-1500:]}"
