"""What an exception says of its cause: its class first, then its words. The first row that fits counts."""

from typing import NamedTuple

from launch.state.attempts import Cause
from launch.state.full_disk import disk_is_full

# Torch's AcceleratorError and DistError are RuntimeErrors, too, and so is what older ones raise. A program's own
# mistakes (ValueError, KeyError, …) are never a node's.
OUTSIDE = ("RuntimeError", "OSError")

NO_MEMORY = (
    "CUDA error: out of memory",
    "'out of memory'",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "can't allocate memory",
)
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
    "uncorrectable ECC error",
    "Double Bit ECC error",
    "uncorrectable NVLink error",
    "over nvlink or a hardware error",
    "unspecified launch failure",
    "hardware stack error",
    "system not yet initialized",
    "unsupported display driver / cuda driver combination",
    "driver version is insufficient for CUDA runtime version",
    "forward compatibility was attempted on non supported HW",
    "CUDA error: initialization error",
    "unknown error",
    "No CUDA GPUs are available",
    "Found no NVIDIA driver on your system",
    "NVIDIA driver on your system is too old",
    "CUDA driver initialization failed",
    "Driver/library version mismatch",
    "GPU is lost",
    "fallen off the bus",
    "Xid (",
    "Input/output error",
    "Bus error",
    "Stale file handle",
)
# What a rank says when another one is gone: no cause, the other one knows it.
ECHO = ("by peer", "by remote peer", "remote process exited", "remote process exiting", "was aborted")
# NCCL's own, where it names no peer.
NCCL_ON_THIS_NODE = ("ncclSystemError", "ncclUnhandledCudaError", "unhandled system error", "unhandled cuda error")
OF_RANKS = ("peer", "ProcessGroup", "NCCL", "TCPStore", "gloo")


class Sign(NamedTuple):
    """One row: an exception of one of these classes, with one of these words in what it says, has this cause."""

    cause: Cause
    classes: tuple[str, ...]
    """Names, as nothing here imports torch; any class for none."""
    words: tuple[str, ...] = ()


SIGNS = (
    Sign("not finite", ("NotFiniteError",)),
    Sign("node", ("LostGpuError",)),
    Sign("hung", ("SilentLoaderError",)),
    Sign("out of memory", ("MemoryError", "OutOfMemoryError")),
    Sign("out of memory", OUTSIDE, NO_MEMORY),
    Sign("exception", OUTSIDE, PROGRAM),
    Sign("node", OUTSIDE, DEVICE),
    Sign("killed", OUTSIDE, ECHO),
    Sign("node", OUTSIDE, NCCL_ON_THIS_NODE),
    Sign("killed", ("DistError", "ConnectionError")),
    Sign("killed", OUTSIDE, OF_RANKS),
)


def cause_of_error(error: Exception) -> tuple[Cause, str]:
    """Cause and detail of an exception of the training."""
    said = " ".join(str(error).split())
    cause = "disk full" if disk_is_full(error) else _cause(error, said.lower())
    kind = {
        "killed": "another rank is gone: ",
        "node": f"{type(error).__name__}: ",
        "exception": f"{type(error).__name__}: ",
    }
    return cause, kind.get(cause, "") + said[:300]


def _cause(error: Exception, said: str) -> Cause:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    for cause, classes, words in SIGNS:
        if kinds & set(classes) and (not words or any(word.lower() in said for word in words)):
            return cause
    return "exception"
