"""What ended a training, from its exception: real texts of torch, CUDA, NCCL, gloo, drivers and kernels."""

import errno

import pytest
import torch
from torch.distributed import DistBackendError, DistNetworkError, DistStoreError

from fsr.errors import LostGpuError, NotFiniteError
from launch.slurm.error_causes import cause_of_error

Accelerator = getattr(torch, "AcceleratorError", RuntimeError)  # from torch 2.8 on
# All of CUDA's errors end like this in torch, whose words must not be taken for the error's own.
TAIL = """
Search for `cudaErrorX' in https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html for more information.
CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be incorrect.
For debugging consider passing CUDA_LAUNCH_BLOCKING=1
Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.
"""
NCCL = "NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.cpp:94, "
SYSTEM = (
    f"{NCCL}unhandled system error (run with NCCL_DEBUG=INFO for details), NCCL version 2.28.9\n"
    "ncclSystemError: System call (e.g. socket, malloc) or external library call failed or device error. \n"
    "Last error:\n"
)
CUDA = (
    f"{NCCL}unhandled cuda error (run with NCCL_DEBUG=INFO for details), NCCL version 2.28.9\n"
    "ncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\n"
)
REMOTE = (
    f"{NCCL}remote process exited or there was a network error, NCCL version 2.28.9\n"
    "ncclRemoteError: A call failed possibly due to a network error or a remote process exiting prematurely.\n"
    "Last error:\nsocketProgress: Connection closed by remote peer n2<41234>"
)
USAGE = (
    f"{NCCL}invalid usage (run with NCCL_DEBUG=WARN for details), NCCL version 2.28.9\n"
    "ncclInvalidUsage: This usually reflects invalid usage of NCCL library.\nLast error:\n"
    "Duplicate GPU detected : rank 1 and rank 0 both on CUDA device 1b000"
)

NODE = [
    LostGpuError("SLURM_JOB_GPUS=0 promises a GPU, but torch 2.11.0 (built for CUDA 13.0) sees none"),
    *(
        Accelerator(f"CUDA error: {words}{TAIL}")
        for words in (
            "CUDA-capable device(s) is/are busy or unavailable",
            "no CUDA-capable device is detected",
            "invalid device ordinal",
            "unspecified launch failure",
            "hardware stack error",
            "system not yet initialized",
            "uncorrectable ECC error encountered",
            "uncorrectable NVLink error detected during the execution",
            "Invalid access of peer GPU memory over nvlink or a hardware error",
            "unknown error",
            "initialization error",
            "system has unsupported display driver / cuda driver combination",
            "CUDA driver version is insufficient for CUDA runtime version",
            "forward compatibility was attempted on non supported HW",
        )
    ),
    RuntimeError(f"CUDA error: unspecified launch failure{TAIL}"),  # of an older torch
    RuntimeError("No CUDA GPUs are available"),
    RuntimeError(
        "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU and installed a driver"
    ),
    RuntimeError("CUDA driver initialization failed, you might not have a CUDA gpu."),
    RuntimeError("CUDA unknown error - this may be due to an incorrectly set up environment"),
    RuntimeError("The NVIDIA driver on your system is too old (found version 11040)."),
    RuntimeError("NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', GPU has fallen off the bus."),
    RuntimeError(
        "Unable to determine the device handle for GPU 0000:3B:00.0: GPU is lost. Reboot the system to recover"
    ),
    RuntimeError("Failed to initialize NVML: Driver/library version mismatch"),
    DistBackendError(f"{CUDA}Cuda failure 'uncorrectable ECC error encountered'"),
    DistBackendError(f"{CUDA}Cuda failure 999 'unknown error'"),
    DistBackendError(f"{SYSTEM}Error while creating shared memory segment /dev/shm/nccl-3tGfQw (size 9637888)"),
    OSError(errno.EIO, "Input/output error"),
    OSError(errno.ESTALE, "Stale file handle"),
]
EXCEPTION = [
    Accelerator(f"CUDA error: an illegal memory access was encountered{TAIL}"),
    Accelerator(f"CUDA error: device-side assert triggered{TAIL}"),
    Accelerator(f"CUDA error: misaligned address{TAIL}"),
    Accelerator(f"CUDA error: invalid configuration argument{TAIL}"),
    DistBackendError(f"{CUDA}Cuda failure 'an illegal memory access was encountered'"),
    DistBackendError(USAGE),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (4x768 and 512x20)"),
    ValueError("an eccentric value by peer review of an unknown error"),
    KeyError("NCCL"),
]
KILLED = [
    DistBackendError(REMOTE),
    DistBackendError(f"{SYSTEM}socketProgressOpt: Call to recv from 10.0.0.2<48764> failed : Connection reset by peer"),
    DistBackendError("NCCL communicator was aborted on rank 0."),
    DistNetworkError("The client socket has timed out after 600000ms while trying to connect to (n1, 29500)."),
    DistStoreError("wait timeout after 300000ms, keys: /default_pg/0//cpu//0/rank_1"),
    RuntimeError(
        "[../third_party/gloo/gloo/transport/tcp/pair.cc:525] Read error [10.0.0.1]:3: Connection reset by peer"
    ),
    RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:84] Timed out waiting 1800000ms"),
    RuntimeError("Connection closed by peer [10.0.0.1]"),
    ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
]
MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB"),
    Accelerator(f"CUDA error: out of memory{TAIL}"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    DistBackendError(f"{CUDA}Cuda failure 2 'out of memory'"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    MemoryError(),
]
OTHERS = [
    (NotFiniteError("loss nan at step 7"), "not finite"),
    (OSError(errno.ENOSPC, "No space left on device"), "disk full"),
    (OSError(errno.EDQUOT, "Disk quota exceeded"), "disk full"),
]
KNOWN = {"node": NODE, "exception": EXCEPTION, "killed": KILLED, "out of memory": MEMORY}


@pytest.mark.parametrize(
    "error, cause", OTHERS + [(error, cause) for cause, errors in KNOWN.items() for error in errors], ids=repr
)
def test_the_cause_of_an_exception(error, cause):
    assert cause_of_error(error)[0] == cause


def test_the_detail_of_an_exception_is_one_short_line():
    _, detail = cause_of_error(ValueError("two\nlines " + "x" * 1000))
    assert detail.startswith("ValueError: two lines xxx")
    assert len(detail) < 400
