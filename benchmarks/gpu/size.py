"""How large everything is: the paper's sizes on a GPU, or tiny ones that try this code on a CPU."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from fsr.config import TrainConfig, voc

# What is measured, in a row of a table: its name, and the call that measures it.
Row: TypeAlias = tuple[str, Callable[[], dict[str, Any]]]


@dataclass(frozen=True)
class Size:
    """The device, and how large its work is."""

    device: torch.device
    network: dict[str, Any]
    """What makes the paper's network smaller."""
    batches: tuple[int, ...]
    """Images of a step."""
    matrix: int
    """Side of the matrices whose product is timed."""
    side: int
    """Side of the images that are filtered."""
    picture: tuple[int, int]
    """Height and width of a photograph."""
    images: int
    """That an inference answers."""
    repeats: int

    @property
    def on_gpu(self) -> bool:
        """Whether graphs, streams and kernels can be had."""
        return self.device.type == "cuda"

    def config(self, batch: int, **changes: Any) -> TrainConfig:
        """The paper's run on VOC with one micro-batch of `batch` images a step."""
        own = {"pretrained": "none", "batch_size": batch, "ranks": 1}
        return dataclasses.replace(voc(), **(own | self.network | changes))

    def pictures(self, count: int, height: int, width: int) -> torch.Tensor:
        """Picture-like images, float32 [count, 3, height, width] in 0..255."""
        from pictures import picture

        images = [torch.from_numpy(picture(height, width, seed % 8)) for seed in range(count)]
        return torch.stack(images).permute(0, 3, 1, 2).float().contiguous().to(self.device)


REAL = Size(torch.device("cuda"), {}, (8, 2), 8192, 224, (375, 500), 96, 6)
DRY = Size(
    torch.device("cpu"),
    {
        **{"embed_dim": 24, "depth": 3, "heads": 2, "crop_size": 64, "block_size": 16, "decoder_width": 8},
        **{"projector_hidden": 16, "projector_bottleneck": 8, "out_dim": 16},
    },
    (2,),
    256,
    32,
    (48, 64),
    8,
    2,
)
