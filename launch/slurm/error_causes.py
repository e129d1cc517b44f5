"""What an exception says of its cause: what the system said first, then its class and words. The first row counts."""

import errno
import re
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from launch.state.attempts import Cause
from launch.state.code_snapshot import ROOT

# Torch's AcceleratorError and DistError are RuntimeErrors, too, and so is what older ones raise. A program's own
# mistakes (ValueError, KeyError, …) are never a node's.
OUTSIDE = ("RuntimeError", "OSError")

# Error numbers of the system, of the exception or of one that it was raised from.
NUMBERS: dict[int, Cause] = {
    errno.ENOSPC: "disk full",
    errno.EDQUOT: "disk full",
    errno.ENOMEM: "out of memory",
    errno.EIO: "node",
    errno.ESTALE: "node",
    errno.ENODEV: "node",
    errno.ENXIO: "node",
    errno.EROFS: "node",
    errno.ENOTCONN: "node",
    errno.ESHUTDOWN: "node",
    errno.EREMOTEIO: "node",
}
# Loaders hand their batches over in shared memory; a bus error is how the kernel says that there is no more of it.
SHARED_MEMORY = (
    "/dev/shm",
    "shared memory(shm)",
    "shared memory object",
    "out of shared memory",
    "raise your shared memory limit",
    "insufficient shared memory",
    "killed by signal: Bus error",
    "file </torch_",
)
NO_MEMORY = (
    "CUDA error: out of memory",
    "'out of memory'",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "can't allocate memory",
    "Cannot allocate memory",
    "bad_alloc",
)
# The first two are what torch.save says of a file that it could not write, where it does not say why.
NO_SPACE = ("file write failed", "unexpected pos", "No space left on device", "Disk quota exceeded", "disk is full")
# A kernel of the program did what it must not. A GPU that fails may say so as well, but so does every wrong index, and
# that would mark one node after the other as bad.
PROGRAM = (
    "an illegal memory access was encountered",
    "device-side assert triggered",
    "misaligned address",
    "invalid argument",
    "invalid configuration argument",
    "ncclInvalidArgument",
    "ncclInvalidUsage",
)
# What the CUDA runtime, torch, NVML, the driver and the kernel say when a device of the node fails or is gone.
DEVICE = (
    "no CUDA-capable device is detected",
    "invalid device ordinal",
    "CUDA-capable device(s) is/are busy or unavailable",
    "CUDA-capable devices are busy or unavailable",
    "uncorrectable ECC error",
    "Double Bit ECC error",
    "uncorrectable NVLink error",
    "over nvlink or a hardware error",
    "peer access is not supported between these two devices",
    "peer mapping resources exhausted",
    "unspecified launch failure",
    "the launch timed out and was terminated",
    "hardware stack error",
    "system not yet initialized",
    "unsupported display driver / cuda driver combination",
    "driver version is insufficient for CUDA runtime version",
    "compiled with an unsupported toolchain",
    "forward compatibility was attempted on non supported HW",
    "CUDA error: initialization error",
    "unknown error",
    "No CUDA GPUs are available",
    "no GPUs found",
    "No devices were found",
    "Found no NVIDIA driver on your system",
    "NVIDIA driver on your system is too old",
    "CUDA driver initialization failed",
    "Failed to initialize NVML",
    "Driver/library version mismatch",
    "GPU is lost",
    "GPU requires reset",
    "fallen off the bus",
    "Xid (",
)
# What the C library says of a file system or device that is gone, where an exception has only the words.
FILE_SYSTEM = (
    "Input/output error",
    "Stale file handle",
    "Stale NFS file handle",
    "Transport endpoint is not connected",
    "Cannot send after transport endpoint shutdown",
    "Remote I/O error",
    "No such device",
    "Read-only file system",
    "disk I/O error",
)
# How torch says which signal ended a loader's process.
LOADER = ("is killed by signal", "exited unexpectedly")
# What a rank says when another one is gone, or does not come: no cause, the other one knows it.
ECHO = (
    "by peer",
    "by remote peer",
    "remote process exited",
    "remote process exiting",
    "was aborted",
    "Watchdog caught collective operation timeout",
    "Timeout(ms)=",
    "Timed out waiting",
    "NCCL operations have failed or timed out",
    "reached monitoredBarrier",
)
# NCCL's own, where it names no peer.
NCCL_ON_THIS_NODE = ("ncclSystemError", "ncclUnhandledCudaError", "unhandled system error", "unhandled cuda error")
OF_RANKS = ("peer", "ProcessGroup", "NCCL", "TCPStore", "gloo", "Socket Timeout", "Broken pipe")

GONE_RANK = "another rank is gone: "
FULL_SHARED_MEMORY = "shared memory (/dev/shm) is full; fewer --workers need less of it, and --workers 0 none: "


class Sign(NamedTuple):
    """One row: an exception of one of these classes, with one of these words in what it says, has this cause."""

    cause: Cause
    classes: tuple[str, ...]
    """Names, as nothing here imports torch; any class for none."""
    words: tuple[str, ...] = ()
    before: str = ""
    """What the detail says before the exception's own words."""


SIGNS = (
    Sign("not finite", ("NotFiniteError",)),
    Sign("node", ("LostGpuError",)),
    Sign("hung", ("SilentLoaderError",)),
    Sign("out of memory", ("MemoryError", "OutOfMemoryError")),
    Sign("out of memory", OUTSIDE, NO_MEMORY),
    Sign("disk full", (*OUTSIDE, "OperationalError"), NO_SPACE),
    Sign("exception", OUTSIDE, PROGRAM),
    Sign("node", (*OUTSIDE, "OperationalError"), FILE_SYSTEM),
    Sign("killed", OUTSIDE, LOADER),
    Sign("killed", OUTSIDE, ECHO, GONE_RANK),
    Sign("node", (*OUTSIDE, "ValueError"), ("no GPUs found",)),
    Sign("node", OUTSIDE, DEVICE),
    Sign("node", OUTSIDE, NCCL_ON_THIS_NODE),
    Sign("killed", ("DistError", "ConnectionError"), (), GONE_RANK),
    Sign("killed", OUTSIDE, OF_RANKS, GONE_RANK),
)
# Paths may have any words in them: in quotes, or from a slash on that no word stands before (`is/are` is none).
PATHS = re.compile(r"""(['"])(?:\.{0,2}|~)/.*?\1|'[^'\s]*/[^'\s]*'|(?<![\w)])(?:\.{0,2}|~)/[^\s:,;'")\]>]+""")


def cause_of_error(error: BaseException) -> tuple[Cause, str]:
    """Cause and detail of an exception of the training."""
    said = " ".join(_last_words(str(error)).split())
    cause, before = _cause(error, said)
    if cause in ("node", "exception"):
        before += f"{type(error).__name__}: "
    return cause, before + said[:300]


def place_of_error(error: BaseException) -> str:
    """The last line of this project that an exception came through: `fsr/train.py:88`; empty if there is none."""
    frames = [(Path(frame.filename).resolve(), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    own = [(file, line) for file, line in frames if file.is_relative_to(ROOT) and "site-packages" not in file.parts]
    return f"{own[-1][0].relative_to(ROOT)}:{own[-1][1]}" if own else ""


def _cause(error: BaseException, said: str) -> tuple[Cause, str]:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if kinds & set(OUTSIDE) and _has(said, SHARED_MEMORY):
        return "out of memory", FULL_SHARED_MEMORY
    for each in _chain(error):
        if isinstance(each, OSError) and each.errno in NUMBERS:
            return NUMBERS[each.errno], ""
    words = PATHS.sub(" ", said)
    for sign in SIGNS:
        if kinds & set(sign.classes) and (not sign.words or _has(words, sign.words)):
            return sign.cause, sign.before
    return "exception", ""


def _last_words(text: str) -> str:
    """What an error says; of one from a loader's process, which comes with its traceback, the error's own line."""
    if "Original Traceback" not in text:
        return text
    lines = text.rstrip().splitlines()
    own = [number for number, line in enumerate(lines) if re.match(r"[\w.]+: ", line)]
    return "\n".join(lines[own[-1] :]) if own else text


def _has(said: str, words: tuple[str, ...]) -> bool:
    return any(word.lower() in said.lower() for word in words)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception, and those that it was raised from or while handling."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        yield each
        seen.add(id(each))
        each = each.__cause__ or each.__context__
