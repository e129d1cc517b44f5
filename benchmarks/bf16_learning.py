"""Whether the synthetic preset learns as much in bf16 as in float32: the same seeds, both precisions.

    python benchmarks/bf16_learning.py --out runs/bf16_learning --seeds 0 5 7

CPUs without units for bf16 multiply it a hundred times slower than float32. There, products of bf16 tensors are
computed in float32 and rounded to bf16 afterwards, which is what such units do. Runs that are there already are read,
not repeated. The last line is JSON.
"""

import dataclasses
import json
import statistics
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from machine import machine
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from fsr.config import synthetic
from fsr.run import Run
from fsr.train import train

SCORES = ("val/seg_miou", "val/cam_best_miou", "val/aux_cam_best_miou")
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "convolution")


@dataclass(frozen=True)
class Options:
    """Train the preset in both precisions."""

    out: Path = Path("runs/bf16_learning")
    """Folder of the runs."""
    data_folder: Path = Path("data/synthetic")
    """The synthetic set."""
    seeds: tuple[int, ...] = (0, 5, 7)
    """A run of each precision for each."""
    precisions: tuple[str, ...] = ("fp32", "bf16")
    """Those to run."""


class ProductsInFloat32(TorchDispatchMode):
    """Computes products of bf16 tensors in float32, forward and backward, and rounds the results to bf16."""

    def __torch_dispatch__(
        self, function: Callable, types: object, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        types_seen = {value.dtype for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)}
        product = any(name in function.overloadpacket.__name__ for name in PRODUCTS)
        if not product or torch.bfloat16 not in types_seen:
            return function(*args, **kwargs)

        def widen(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.float() if tensor.dtype == torch.bfloat16 else tensor

        def narrow(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.bfloat16() if tensor.dtype == torch.float32 else tensor

        args, kwargs = tree_map_only(torch.Tensor, widen, (args, kwargs))
        return tree_map_only(torch.Tensor, narrow, function(*args, **kwargs))


def main() -> None:
    """Train and print."""
    options = tyro.cli(Options)
    scores: dict[str, dict[str, list[float]]] = {}
    for precision in options.precisions:
        for seed in options.seeds:
            run = Run(options.out / f"{precision}_{seed}")
            config = dataclasses.replace(synthetic(options.data_folder), seed=seed, precision=precision)
            emulated = precision == "bf16" and not torch.cuda.is_available() and not torch.cpu._is_amx_tile_supported()
            with ProductsInFloat32() if emulated else nullcontext():
                train(config, run)
            for name in SCORES:
                scores.setdefault(precision, {}).setdefault(name, []).append(round(run.result()[name], 4))
            print(precision, seed, {name: scores[precision][name][-1] for name in SCORES}, flush=True)
    means = {
        precision: {name: round(statistics.mean(values), 4) for name, values in by_name.items()}
        for precision, by_name in scores.items()
    }
    print(json.dumps({"scores": scores, "means": means, "seeds": options.seeds} | machine()))


if __name__ == "__main__":
    main()
