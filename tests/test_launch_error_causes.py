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

LOADER = (
    "Caught OSError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
    '  File "/venv/lib/python3.11/site-packages/torch/utils/data/_utils/worker.py", line 349, in _worker_loop\n'
    "    data = fetcher.fetch(index)  # peer, gloo, NCCL and unknown error stand in code alone\n"
)


def raised_from(error, first):
    """An error that was raised while another one was handled."""
    error.__context__ = first
    return error


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
    *(
        Accelerator(f"CUDA error: {words}{TAIL}")
        for words in (
            "all CUDA-capable devices are busy or unavailable",
            "the launch timed out and was terminated",
            "peer access is not supported between these two devices",
            "the provided PTX was compiled with an unsupported toolchain.",
        )
    ),
    RuntimeError("Failed to initialize NVML: Unknown Error"),
    RuntimeError("Unable to determine the device handle for GPU0000:3B:00.0: GPU requires reset"),
    ValueError("ProcessGroupNCCL is only supported with GPUs, no GPUs found!"),
    OSError(errno.EIO, "Input/output error"),
    OSError(errno.EIO, "Input/output error", "/data/peer/2007_000032.jpg"),
    OSError(errno.ESTALE, "Stale file handle"),
    OSError(errno.ENODEV, "No such device"),
    OSError(errno.ENXIO, "No such device or address"),
    OSError(errno.ENOTCONN, "Transport endpoint is not connected", "/lustre/runs"),
    OSError(errno.ESHUTDOWN, "Cannot send after transport endpoint shutdown"),
    OSError(errno.EREMOTEIO, "Remote I/O error"),
    OSError(errno.EROFS, "Read-only file system"),
    RuntimeError("write(): fd 29 failed with Input/output error"),
    RuntimeError("open file failed because of errno 116 on fopen: Stale file handle, file path: /data/x.pt"),
    OSError(f"{LOADER}OSError: [Errno 5] Input/output error: '/data/JPEGImages/2007_000032.jpg'\n"),
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
    FileNotFoundError(errno.ENOENT, "No such file or directory", "/data/peer/gloo/NCCL.jpg"),
    FileNotFoundError(errno.ENOENT, "No such file or directory", "/data/reset by peer/unknown error.jpg"),
    FileNotFoundError(errno.ENOENT, "No such file or directory", "peer/ProcessGroup.jpg"),
    PermissionError(errno.EACCES, "Permission denied", "/home/peer/.cache"),
    OSError(errno.EMFILE, "Too many open files"),
    RuntimeError("Error(s) in loading state_dict for Network: size mismatch in file /home/peer/TCPStore/best.pt"),
    RuntimeError(f"{LOADER}RuntimeError: stack expects each tensor to be equal size, but got [3, 64] and [3, 32]\n"),
    RuntimeError("can't start new thread"),
    RuntimeError("CUDA error: no kernel image is available for execution on the device"),
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
    BrokenPipeError(errno.EPIPE, "Broken pipe"),
    RuntimeError("Broken pipe"),
    RuntimeError("Socket Timeout"),
    *(
        kind(
            "[Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=1580, OpType=ALLREDUCE, "
            "NumelIn=466119168, NumelOut=466119168, Timeout(ms)=600000) ran for 600060 milliseconds before timing out."
        )
        for kind in (DistBackendError, RuntimeError)
    ),
    RuntimeError(
        "[Rank 1] Some NCCL operations have failed or timed out. Due to the asynchronous nature of CUDA kernels, "
        "subsequent GPU operations might run on corrupted/incomplete data."
    ),
    RuntimeError(
        "Rank 0 successfully reached monitoredBarrier, but received errors while waiting for send/recv from rank 1."
    ),
    DistNetworkError("The client socket has failed to connect to any network address of (n1, 29500)."),
    RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.1]:5"),
    *(
        RuntimeError(f"DataLoader worker (pid 325) is killed by signal: {words}. ")
        for words in ("Killed", "Terminated", "Segmentation fault", "Aborted")
    ),
    RuntimeError("DataLoader worker (pid(s) 41, 42) exited unexpectedly"),
]
MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB"),
    Accelerator(f"CUDA error: out of memory{TAIL}"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    DistBackendError(f"{CUDA}Cuda failure 2 'out of memory'"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    MemoryError(),
    MemoryError("std::bad_alloc"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
]
SHARED_MEMORY = [
    RuntimeError("DataLoader worker (pid 13) is killed by signal: Bus error. "),
    RuntimeError(
        "DataLoader worker (pid 1287) is killed by signal: Bus error. It is possible that dataloader's workers are out "
        "of shared memory. Please try to raise your shared memory limit."
    ),
    RuntimeError(
        "unable to allocate shared memory(shm) for file </torch_2276_1706_0>: Resource temporarily unavailable (11)"
    ),
    RuntimeError("unable to write to file </torch_10182_3020184674_63991>: No space left on device (28)"),
    RuntimeError("unable to open shared memory object </torch_29919_1396182366> in read-write mode"),
    RuntimeError("unable to mmap 29764 bytes from file </torch_10182_3020184674_63991>: Cannot allocate memory (12)"),
    RuntimeError("unable to resize file </torch_2276_17> to the right size: No space left on device (28)"),
    RuntimeError(
        "Unexpected bus error encountered in worker. This might be caused by insufficient shared memory (shm)."
    ),
    OSError(errno.ENOSPC, "No space left on device", "/dev/shm/psm_3f9a"),
    RuntimeError(f"{LOADER}RuntimeError: unable to write to file </torch_77_1>: No space left on device (28)\n"),
    DistBackendError(f"{SYSTEM}Error while creating shared memory segment /dev/shm/nccl-3tGfQw (size 9637888)"),
]
FULL_DISK = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EDQUOT, "Disk quota exceeded", "/home/x/runs"),
    RuntimeError(
        "[enforce fail at inline_container.cc:778] . PytorchStreamWriter failed writing file data/7: file write failed"
    ),
    RuntimeError("[enforce fail at inline_container.cc:626] . unexpected pos 190007680 vs 190007572"),
    raised_from(RuntimeError("basic_ios::clear: iostream error"), OSError(errno.ENOSPC, "No space left on device")),
    raised_from(
        RuntimeError("[enforce fail at inline_container.cc:626] . unexpected pos 576 vs 470"),
        raised_from(RuntimeError("file write failed"), OSError(errno.EDQUOT, "Disk quota exceeded")),
    ),
    RuntimeError("write(): fd 29 failed with No space left on device"),
    OSError(f"{LOADER}OSError: [Errno 122] Disk quota exceeded\n"),
]
OTHERS = [
    (raised_from(RuntimeError("file write failed"), OSError(errno.EIO, "Input/output error")), "node"),
    (NotFiniteError("loss nan at step 7"), "not finite"),
]
KNOWN = {
    "node": NODE,
    "exception": EXCEPTION,
    "killed": KILLED,
    "out of memory": [*MEMORY, *SHARED_MEMORY],
    "disk full": FULL_DISK,
}


@pytest.mark.parametrize(
    "error, cause", OTHERS + [(error, cause) for cause, errors in KNOWN.items() for error in errors], ids=repr
)
def test_the_cause_of_an_exception(error, cause):
    assert cause_of_error(error)[0] == cause


def test_the_detail_of_an_exception_is_one_short_line():
    _, detail = cause_of_error(ValueError("two\nlines " + "x" * 1000))
    assert detail.startswith("ValueError: two lines xxx")
    assert len(detail) < 400


@pytest.mark.parametrize("error", SHARED_MEMORY, ids=repr)
def test_full_shared_memory_is_named_with_what_helps(error):
    _, detail = cause_of_error(error)
    assert detail.startswith(
        "shared memory (/dev/shm) is full; fewer --workers need less of it, and --workers 0 none: "
    )


def test_only_a_lost_rank_is_called_one():
    assert cause_of_error(KILLED[0])[1].startswith("another rank is gone: ")
    assert cause_of_error(KILLED[-1])[1] == "DataLoader worker (pid(s) 41, 42) exited unexpectedly"


def test_of_an_error_in_a_loader_the_detail_is_its_own_line():
    _, detail = cause_of_error(OSError(f"{LOADER}OSError: [Errno 5] Input/output error: '/data/x.jpg'\n"))
    assert detail == "OSError: OSError: [Errno 5] Input/output error: '/data/x.jpg'"
