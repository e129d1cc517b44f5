"""Floating-point operations of a training step and of an inference, and parameters: counted, not computed.

Torch's own counter (`torch.utils.flop_counter`) counts the products of tensors without content, so a step of ViT-B
takes seconds and no memory. A product of an m × k and a k × n matrix has 2mkn operations; all else counts as none.
"""

import dataclasses
import inspect
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import CodeType
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from fsr import step as training_step
from fsr.cam import resized
from fsr.config import TrainConfig
from fsr.losses.affinity import affinity_loss
from fsr.losses.energy import energy_loss
from fsr.losses.segmentation import segmentation_loss
from fsr.losses.self_reinforcement import SelfReinforcement
from fsr.losses.separate_and_conquer import separate_and_conquer_of
from fsr.masking import block_noise
from fsr.models.encoder import Features
from fsr.models.network import Network
from fsr.models.projector import Projector
from fsr.step import Batch, step_losses

LABELS = 2  # classes of an image, as VOC and COCO have them on average
OTHER = "other"


def _code(function: Callable[..., Any]) -> CodeType:
    code: CodeType = inspect.unwrap(function).__code__
    return code


# What a step consists of: the function that does it. The innermost one that is running gets the operations.
PARTS: dict[CodeType, str] = {
    _code(training_step.view2_cam): "CAM of view 2",
    _code(Network.targets): "teacher",
    _code(Network.forward): "student",
    _code(Projector.forward): "projector",
    _code(Projector.embed): "projector",
    _code(training_step.view1_cams): "CAM of view 1",
    _code(training_step.pseudo_label_of): "losses",
    _code(SelfReinforcement.forward): "losses",
    _code(affinity_loss): "losses",
    _code(segmentation_loss): "losses",
    _code(energy_loss): "losses",
    _code(training_step.option_losses): "losses",
    _code(torch.autograd.backward): "backward",
}
IN_PARTS = {"projector"}  # which is one of the student's and one of the teacher's
ORDER = (
    *("CAM of view 2", "teacher", "projector of the teacher", "student", "projector of the student", "CAM of view 1"),
    *("losses", "backward", OTHER),
)
"""The parts of a step, as they follow each other."""


def parameters(config: TrainConfig) -> dict[str, int]:
    """Parameters of a network by part; student and teacher have one each, and the student's are trained."""
    network = _network(config)
    return {name: sum(one.numel() for one in part.parameters()) for name, part in network.named_children()}


def blocks(config: TrainConfig) -> int:
    """Blocks of the encoder."""
    return len(_network(config).encoder.blocks)


def kinds_of_steps(config: TrainConfig) -> dict[int, int]:
    """The steps of a run that do different work: the first of each kind, and how many of it there are."""
    first: dict[tuple[Hashable, ...], int] = {}
    steps: Counter[int] = Counter()
    for step in range(config.iterations):
        counts = [weight > 0 for weight in config.loss_weights(step).values()]
        kind = config.masks_at_random(step), config.cam_source_at(step), *counts
        steps[first.setdefault(kind, step)] += 1
    return dict(steps)


def step_flops(config: TrainConfig, steps: Iterable[int]) -> dict[int, dict[str, int]]:
    """Operations of a micro-batch of these steps (from 0) by part, gradients included. The optimizer has no product."""
    size, batch = config.crop_size, config.batch_size
    student, teacher = _network(config).train(), _network(config).requires_grad_(False).train()
    flops = {}
    with _without_content():
        networks = student.to_empty(device="cpu"), teacher.to_empty(device="cpu")
        reinforcement = SelfReinforcement(config.out_dim, config.student_temp)
        seco = separate_and_conquer_of(config)
        labels = torch.zeros(batch, config.num_classes - 1)
        crops = [torch.zeros(batch, 3, config.local_crop_size, config.local_crop_size)] * config.local_crops
        view = torch.zeros(batch, 3, size, size)
        images = Batch(view, view, labels, crops, min(LABELS, config.num_classes - 1))
        for step in steps:
            with FlopCounterMode(display=False) as total, _Parts(total) as parts:
                noise = block_noise(batch, config)
                losses = step_losses(*networks, reinforcement, images, noise, step, config, seco=seco)
                torch.autograd.backward(losses["loss"])
            flops[step] = {part: parts.flops[part] for part in ORDER if part in parts.flops}
    return flops


def inference_flops(config: TrainConfig, size: tuple[int, int], scales: tuple[float, ...]) -> dict[float, int]:
    """Operations of an image of `size` (width, height) by scale: the network on it and its flip, with all its CAMs."""
    network = _network(config).eval()
    flops = {}
    with _without_content(), torch.no_grad():
        network.to_empty(device="cpu")
        image = torch.zeros(1, 3, size[1], size[0])
        for scale in scales:
            with FlopCounterMode(display=False) as total:
                scaled = resized(image, scale)
                seen: Features = network.encoder(torch.cat([scaled, scaled.flip(-1)]))
                network.decoder(seen.top)
                network.top_cam(seen.top)
                network.aux_cam(seen.aux)
            flops[scale] = total.get_total_flops()
    return flops


def mean_flops(by_step: Mapping[int, Mapping[str, int]], steps: Mapping[int, int]) -> float:
    """Operations of a micro-batch in the mean over a run, of those of each kind of step and how many there are."""
    return sum(count * sum(by_step[step].values()) for step, count in steps.items()) / sum(steps.values())


def _network(config: TrainConfig) -> Network:
    with torch.device("meta"):
        network = Network(dataclasses.replace(config, pretrained="none"))
    return network


@contextmanager
def _without_content() -> Iterator[None]:
    """Let tensors have shapes alone. The counter knows not the CPU's fused attention, but what it is made of."""
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        # What was cached meanwhile has no content either.
        for name, module in list(sys.modules.items()):
            for value in vars(module).values() if name.startswith("fsr.") else ():
                if hasattr(value, "cache_clear"):
                    value.cache_clear()


class _Parts(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch gives it no types
    """Gives what a counter has counted to the part of the step that is running, by Python's stack."""

    def __init__(self, total: FlopCounterMode) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._total = total
        self.flops: dict[str, int] = defaultdict(int)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = self._total.get_total_flops()
        out = func(*args, **(kwargs or {}))
        counted = self._total.get_total_flops() - before
        if counted:
            self.flops[_running()] += counted
        return out


def _running() -> str:
    """The part of a step that runs now."""
    inner, frame = "", inspect.currentframe()
    while frame is not None:
        part = PARTS.get(frame.f_code)
        if part in IN_PARTS:
            inner = inner or f"{part} of the "
        elif part is not None:
            return inner + part if inner and part in ("student", "teacher") else part
        frame = frame.f_back
    return OTHER
