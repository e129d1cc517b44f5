"""Time and peak memory of training and inference here, on this machine's device, with drawn weights and images."""

import dataclasses
import resource
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F

from fsr import distributed
from fsr.arithmetic import computed_in, use_arithmetic
from fsr.checkpoint import TrainState
from fsr.config import TrainConfig
from fsr.flops import LABELS
from fsr.graphs import Graphs
from fsr.inference.multi_scale import multi_scale_inference
from fsr.models.network import Network
from fsr.step import Batch
from fsr.train import one_step

ENOUGH_S = 30.0  # of measuring, after which there is no further repeat
REPEATS = 3


class Measured(NamedTuple):
    """What was measured of one kind of work."""

    device: str
    """As torch calls it, with the precision that it computes in."""
    images_per_s: float
    peak_gb: float
    """Of the GPU's memory, or of the whole process where there is none."""


def measure_training(config: TrainConfig) -> Measured:
    """Steps of one micro-batch, optimizer and teacher included, of the kind of the end of a run. Changes no file."""
    device = distributed.own_device()
    on_cpu = device.type == "cpu"
    config = dataclasses.replace(config, ranks=1, pretrained="none", graphs=config.graphs and not on_cpu)
    use_arithmetic(config.precision, deterministic=config.deterministic)
    torch.manual_seed(0)
    state = TrainState(config, device)
    state.student.train()
    state.teacher.train()
    graphs = Graphs() if config.graphs else None
    labels = torch.zeros(config.batch_size, config.num_classes - 1)
    labels[:, :LABELS] = 1
    crops = [_images(config.batch_size, config.local_crop_size, config.local_crop_size, device)] * config.local_crops
    view1, view2 = (_images(config.batch_size, config.crop_size, config.crop_size, device) for _ in range(2))
    batch = Batch(view1, view2, labels.to(device), crops, min(LABELS, config.num_classes - 1))

    def step() -> None:
        state.step = config.iterations - 1
        one_step(state.student, state, batch, config, device, graphs)

    return _measured(step, config.batch_size, device, config)


def measure_inference(config: TrainConfig, size: tuple[int, int], scales: tuple[float, ...], images: int) -> Measured:
    """The network's part of an inference of so many images of `size` (width, height) at once, without CRF and files."""
    device = distributed.own_device()
    use_arithmetic(config.precision, deterministic=False)
    torch.manual_seed(0)
    network = Network(dataclasses.replace(config, pretrained="none")).to(device).eval()
    batch = _images(images, size[1], size[0], device)
    labels = torch.zeros(images, config.num_classes - 1)
    labels[:, :LABELS] = 1

    def infer() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            multi_scale_inference(network, batch, labels, scales)

    return _measured(infer, images, device, config)


def _images(count: int, height: int, width: int, device: torch.device) -> torch.Tensor:
    """Smooth as photographs are, normalised about as in training."""
    return F.interpolate(4 * torch.rand(count, 3, 8, 8) - 2, (height, width), mode="bilinear").to(device)


def _measured(work: Callable[[], None], images: int, device: torch.device, config: TrainConfig) -> Measured:
    """Median of a few repeats; the first one counts where it took so long that its start is of no matter."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)

    def seconds() -> float:
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - began

    began, taken = time.perf_counter(), [seconds()]
    if taken[0] < ENOUGH_S:
        taken.clear()
        while len(taken) < REPEATS and (not taken or time.perf_counter() - began < ENOUGH_S):
            taken.append(seconds())
    if device.type == "cuda":
        name, peak = torch.cuda.get_device_name(device), torch.cuda.max_memory_allocated(device) / 1e9
    else:
        name, peak = f"CPU, {torch.get_num_threads()} threads", _process_peak_gb()
    called = f"{name}, {computed_in(config.precision, device)}"
    return Measured(called, images / statistics.median(taken), peak)


def _process_peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
