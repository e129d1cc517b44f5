"""What each option that other methods add costs a training step: time of this process, beside a step without any.

    python benchmarks/ingredients.py
    python benchmarks/ingredients.py --model vit_base_patch16_224 --size 448 --repeats 3

The step is that of `fsr.train`, with uncertain masks and all losses. All settings take turns; times are medians of
processor seconds, which other work on the machine disturbs less than those of a clock. The last line is JSON.
"""

import dataclasses
import json
import statistics
import time
from typing import Any

import torch
import tyro
from machine import machine
from rich.console import Console
from rich.table import Table
from train_step import view

from fsr.arithmetic import use_arithmetic
from fsr.checkpoint import TrainState
from fsr.config import TrainConfig, voc
from fsr.step import Batch
from fsr.train import one_step

LATE = 15_000  # of 20 000: every option counts
SETTINGS: dict[str, dict[str, Any]] = {
    "none": {},
    "w_swap": {"w_swap": 0.05},
    "pseudo_label_from teacher": {"pseudo_label_from": "teacher"},
    "threshold_rule cosine": {"threshold_rule": "cosine"},
    "threshold_rule mixture": {"threshold_rule": "mixture"},
    "cam_source top": {"cam_source": "top"},
    "noise_filter_from": {"noise_filter_from": 0.4},
    "w_contrast": {"w_contrast": 0.5},
    "w_seco": {"w_seco": 0.1},
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Measure the options' cost on a CPU."""

    model: str = "vit_small_patch16_224"
    """Backbone, a ViT of timm."""
    size: int = 224
    """Side of the views in pixels."""
    batch: int = 2
    """Images of a step."""
    repeats: int = 9
    """Times that each setting is measured."""

    def config(self, changes: dict[str, Any]) -> TrainConfig:
        """The paper's settings in this size, in one micro-batch, without drop path."""
        own = {"backbone": self.model, "crop_size": self.size, "batch_size": self.batch, "block_size": self.size // 7}
        own |= {"pretrained": "none", "ranks": 1, "drop_path": 0.0}
        return dataclasses.replace(voc(), **(own | changes))


class Step:
    """Steps of one setting, with one batch again and again."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.state = TrainState(config, torch.device("cpu"))
        self.state.student.train()
        self.state.teacher.train()
        views = (torch.stack([view(config.crop_size, first + i) for i in range(config.batch_size)]) for first in (0, 9))
        labels = torch.zeros(config.batch_size, config.num_classes - 1)
        labels[:, [3, 7]] = 1
        self.batch = Batch(*views, labels, [], 2)

    def seconds(self) -> float:
        """Processor seconds of a step."""
        self.state.step = LATE
        start = time.process_time()
        one_step(self.state.student, self.state, self.batch, self.config, torch.device("cpu"))
        return time.process_time() - start


def main() -> None:
    """Measure and print."""
    options = tyro.cli(Options)
    torch.set_num_threads(1)
    use_arithmetic("fp32", deterministic=True)
    steps = {name: Step(options.config(changes)) for name, changes in SETTINGS.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step.seconds()
    for _ in range(options.repeats):
        for name, step in steps.items():
            times[name].append(step.seconds())
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    # Of each round the share beside the step without options in the same round.
    more = {
        name: statistics.median(own / none - 1 for own, none in zip(taken, times["none"], strict=True))
        for name, taken in times.items()
    }
    table = Table("option", "s a step", "more than without")
    for name, taken in medians.items():
        table.add_row(name, f"{taken:.3f}", f"{more[name]:+.1%}")
    Console().print(table)
    found = {name: {"s": round(medians[name], 4), "more": round(more[name], 4)} for name in times}
    print(json.dumps(found | dataclasses.asdict(options) | machine()))


if __name__ == "__main__":
    main()
