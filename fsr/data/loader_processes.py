"""The processes that load a rank's images: they outlive signals, end with the rank, and their own end is one sentence.

Slurm may signal every process of a step, a terminal every process of its group. That asks the rank to save; a worker
that died of it would take the rank along.
"""

import atexit
import multiprocessing
import multiprocessing.queues
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from fsr.data.shared_memory import full, is_full
from fsr.errors import LostLoaderError, SilentLoaderError
from fsr.heartbeat import silence_s
from fsr.parent import end_with

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)
FULL = 28  # exit code of a worker that finds no shared memory
_POLL_S = 1.0  # after which a rank that waits looks whether its workers live
_DYING_S = 1.0  # from what a worker breaks off to its end


def load(dataset: Dataset[Any], workers: int, **options: Any) -> Iterator[Any]:
    """What a DataLoader with these `options` yields, loaded by `workers` processes, or by this one if there are none.

    Raises LostLoaderError if one of the processes dies, SilentLoaderError if they give nothing for FSR_SILENCE_S
    seconds, UserError if they have no shared memory left, all only while somebody waits for the next element.
    """
    loader = DataLoader(
        dataset,
        num_workers=workers,
        timeout=_POLL_S if workers else 0,
        worker_init_fn=partial(_outlive_signals, os.getpid()),
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # else starting the workers draws from the global generator
        **options,
    )
    return _loaded(loader) if workers else iter(loader)


def _loaded(loader: DataLoader[Any]) -> Iterator[Any]:
    patience_s = silence_s()
    elements, processes = _start(loader)
    kill = partial(_kill, processes)
    # At its exit Python would send SIGTERM, which they ignore, and wait for them.
    atexit.register(kill)
    impatience = _Impatience(processes, patience_s)
    try:
        while True:
            try:
                with impatience:
                    element = _next(elements, processes)
            except StopIteration:
                return
            yield element
    finally:
        impatience.end()
        elements._shutdown_workers()
        kill()
        atexit.unregister(kill)


class _Impatience:
    """A context in which the rank waits for its loader workers. They are killed when they give nothing for too long.

    A thread counts the time, because the rank may be stuck in the middle of what a worker says. It counts in rounds, of
    which a job that is suspended meanwhile adds no more than one.
    """

    def __init__(self, processes: list[BaseProcess], patience_s: float) -> None:
        self._processes, self._patience_s = processes, patience_s
        self._waits = 0  # odd while the rank waits
        self._complaint = ""
        self._ended = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def __enter__(self) -> None:
        self._waits += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self._waits += 1
        if isinstance(error, LostLoaderError) and self._complaint:
            raise SilentLoaderError(self._complaint) from None

    def end(self) -> None:
        """Nobody will wait any more."""
        self._ended.set()

    def _watch(self) -> None:
        waits, silent_s, looked = 0, 0.0, time.monotonic()
        while not self._ended.wait(_POLL_S):
            now = time.monotonic()
            elapsed_s, looked = now - looked, now
            silent_s = silent_s + min(elapsed_s, 2 * _POLL_S) if waits == self._waits else 0.0
            waits = self._waits
            if waits % 2 and silent_s >= self._patience_s:
                files = _open_files(self._processes)
                reading = f"; they have open {', '.join(files)}" if files else ""
                gave = f"the {len(self._processes)} loader workers gave nothing for {silent_s:.0f} s"
                self._complaint = gave + reading
                _kill(self._processes)
                return


def _start(loader: DataLoader[Any]) -> tuple[Any, list[BaseProcess]]:
    """The loader's iterator, and its processes.

    They are forked with the signals blocked, so that none ends them before they ignore it. Torch would raise the death
    of one in the midst of whatever the rank is doing; here it is raised where the rank waits for a batch.

    If not all of them can be started, those that were are killed: at its exit Python would wait for them for ever.
    Raises UserError if it is shared memory that they lack, of which each needs some for its semaphores.
    """
    others, in_main_thread = multiprocessing.active_children(), threading.current_thread() is threading.main_thread()
    on_death = signal.getsignal(signal.SIGCHLD)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        elements = iter(loader)
    except BaseException as error:
        _kill([process for process in multiprocessing.active_children() if process not in others])
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if isinstance(half_made := frame.f_locals.get("self"), _MultiProcessingDataLoaderIter):
                half_made._shutdown = True  # else it would complain when it is collected
        if is_full(error):
            raise full(loader.num_workers) from None
        raise
    finally:
        if in_main_thread and on_death is not None:
            signal.signal(signal.SIGCHLD, on_death)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    return elements, [process for process in multiprocessing.active_children() if process not in others]


def _outlive_signals(parent: int, worker: int) -> None:
    """What a worker does first. It ends with the thread that forked it, however that ends."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    end_with(parent)
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(_end_of_feeder)  # type: ignore[attr-defined]
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def _end_of_feeder(error: Exception, element: object) -> None:
    """End this worker if what it loaded cannot be handed over: multiprocessing would go on without it, and the rank
    would wait for it for ever."""
    if not is_full(error):
        traceback.print_exception(error)
    os._exit(FULL if is_full(error) else 1)


def _next(elements: Iterator[Any], processes: list[BaseProcess]) -> Any:
    while True:
        try:
            return next(elements)
        except StopIteration:
            raise
        except Exception as error:  # a dying worker breaks off whatever it says, and that shows in many ways
            timed_out = "DataLoader timed out" in str(error)
            lost = _ended(processes, 0 if timed_out else _DYING_S)
            # Where a worker makes its batch in shared memory, the error is its element, and it lives on.
            if is_full(error) or (lost is not None and lost.exitcode in (FULL, -signal.SIGBUS)):
                raise full(len(processes)) from None
            if lost is not None:
                raise LostLoaderError(_end_of(lost)) from None
            if not timed_out:
                raise


def _ended(processes: list[BaseProcess], patience_s: float) -> BaseProcess | None:
    """One of them that has ended within that time. The sentinel of one that is killed tells its end before the system
    knows its exit code."""
    deadline = time.monotonic() + patience_s
    while True:
        for process in processes:
            if process.exitcode is not None:
                return process
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.01)


def _end_of(process: BaseProcess) -> str:
    code = process.exitcode or 0
    if code >= 0:
        return f"DataLoader worker (pid {process.pid}) ended with exit code {code}"
    # fmt: off
    remedy = {
        signal.SIGBUS: "; it may be out of shared memory (/dev/shm)",
        signal.SIGKILL: "; the node may be out of memory",
    }
    # fmt: on
    name = signal.strsignal(-code)
    return f"DataLoader worker (pid {process.pid}) is killed by signal: {name}{remedy.get(signal.Signals(-code), '')}"


def _open_files(processes: list[BaseProcess]) -> list[str]:
    """Files that the workers are reading, as Linux names them; what the rank has open as well, they inherited."""
    found: set[str] = set().union(*(_files_of(str(process.pid)) for process in processes)) - _files_of("self")
    return sorted(name for name in found if os.path.isfile(name) and not name.startswith(("/dev/", "/proc/")))


def _files_of(process: str) -> set[str]:
    folder, names = Path(f"/proc/{process}/fd"), set()
    for number in folder.glob("*"):
        with suppress(OSError):  # closed meanwhile
            names.add(os.readlink(number))
    return names


def _kill(processes: list[BaseProcess]) -> None:
    for process in processes:
        process.kill()
