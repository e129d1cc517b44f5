"""Whether somebody promised this process a GPU, and what to say where it is not there."""

import os
import re
from pathlib import Path

import torch

from fsr.errors import LostGpuError, UserError

FSR_GPUS = "FSR_GPUS"
"""How many GPUs the command that submitted this job asked for; Slurm may know nothing of them."""
# By number, with which Slurm names the GPUs of a step and of a job.
OF_SLURM = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS", "GPU_DEVICE_ORDINAL")
HIDDEN = ("", "-1", "NoDevFiles")  # in CUDA_VISIBLE_DEVICES: no GPU, by the user's or Slurm's will
DRIVER = Path("/proc/driver/nvidia/version")
DEVICES = Path("/dev")


def promise() -> str | None:
    """The variable that promises a GPU to this process, as NAME=value; None where nobody asked for one."""
    get = os.environ.get
    if get(FSR_GPUS, "0") != "0":
        return f"{FSR_GPUS}={get(FSR_GPUS)}"
    names = visible()
    if names is not None:
        return f"CUDA_VISIBLE_DEVICES={','.join(names)}" if names else None
    return next((f"{name}={get(name)}" for name in OF_SLURM if get(name)), None)


def visible() -> list[str] | None:
    """The GPUs that CUDA_VISIBLE_DEVICES names, up to the first that is none, as CUDA reads it; None if it is unset."""
    value = os.environ.get("CUDA_VISIBLE_DEVICES")
    if value is None:
        return None
    names = [name.strip() for name in value.split(",")]
    return names[: next((i for i, name in enumerate(names) if name in HIDDEN), None)]


def none_visible(promise: str) -> UserError | LostGpuError:
    """The error where a GPU was promised and torch sees none. No node helps against torch's CPU build."""
    built = torch.version.cuda or torch.version.hip
    wheel = f"torch {torch.__version__} ({f'built for CUDA {built}' if built else 'a CPU build'})"
    cpu = "--gpus 0 asks" if promise.startswith(FSR_GPUS) else "CUDA_VISIBLE_DEVICES=-1 asks"
    sentence = f"{promise} promises a GPU, but {wheel} sees none, with {_driver()} and {_devices()}; {cpu} for the CPU"
    return LostGpuError(sentence) if built else UserError(sentence)


def none_of_its_own(local_rank: int, seen: int) -> UserError | LostGpuError:
    """The error where a node's GPUs are fewer than its ranks."""
    sentence = f"rank {local_rank} of this node, counted from 0, needs a GPU of its own, but torch sees {seen}"
    named = visible() or []
    if len(named) > local_rank:
        return LostGpuError(f"{sentence} of CUDA_VISIBLE_DEVICES={','.join(named)}, with {_driver()} and {_devices()}")
    return UserError(f"{sentence}; allowed are as many ranks on a node as it has GPUs")


def _driver() -> str:
    version = re.search(r"\d+\.\d+(\.\d+)?", DRIVER.read_text()) if DRIVER.exists() else None
    return f"NVIDIA driver {version[0]}" if version else "no NVIDIA driver"


def _devices() -> str:
    devices = sorted(str(device) for device in DEVICES.glob("nvidia[0-9]*"))
    return f"the devices {', '.join(devices)}" if devices else "no device /dev/nvidia*"
