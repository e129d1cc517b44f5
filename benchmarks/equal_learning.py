"""Whether the synthetic preset learns as much in bf16, or compiled, as it does in float32, seed by seed.

    python benchmarks/equal_learning.py --out runs/equal_learning --seeds 0 5 7

CPUs without units for bf16 multiply it a hundred times slower than float32. There, products of bf16 tensors are
computed in float32 and then rounded to bf16, which is what such units do. Runs that are there already are read,
not repeated. Prints means, and differences from float32 in pairs with 95 % intervals; the last line is JSON.
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

from analysis.intervals import half_width, mean_and_interval, verdict
from fsr.config import synthetic
from fsr.run import Run
from fsr.score_names import SEG_MIOU
from fsr.train import train

WAYS = {"float32": {}, "bf16": {"precision": "bf16"}, "compiled": {"compile": True}}
SCORES = (SEG_MIOU, "val/cam_best_miou", "val/aux_cam_best_miou")
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "convolution")


@dataclass(frozen=True)
class Options:
    """Train the preset in several ways."""

    out: Path = Path("runs/equal_learning")
    """Folder of the runs."""
    data_folder: Path = Path("data/synthetic")
    """The synthetic set."""
    seeds: tuple[int, ...] = (0, 5, 7)
    """A run of each way for each."""
    ways: tuple[str, ...] = tuple(WAYS)
    """Those to run; the first is what the others are compared with."""


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


def multiplies_bf16() -> bool:
    """Whether the device has units for products of bf16."""
    cpu = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return torch.cuda.is_available() or cpu


def main() -> None:
    """Train and print."""
    options = tyro.cli(Options)
    scores = {way: {name: [] for name in SCORES} for way in options.ways}
    seconds: dict[str, list[float]] = {way: [] for way in options.ways}
    for seed in options.seeds:
        for way in options.ways:
            run = Run(options.out / f"{way}_{seed}")
            config = dataclasses.replace(synthetic(options.data_folder), seed=seed, **WAYS[way])
            emulated = config.precision == "bf16" and not multiplies_bf16()
            with ProductsInFloat32() if emulated else nullcontext():
                train(config, run)
            result = run.result()
            seconds[way].append(round(result["seconds"], 1))
            for name in SCORES:
                scores[way][name].append(round(result[name], 4))
            print(way, seed, {name: values[-1] for name, values in scores[way].items()}, seconds[way][-1], flush=True)
    first = scores[options.ways[0]]
    differences = {}
    for way in options.ways[1:]:
        for name, values in scores[way].items():
            pairs = [theirs - ours for ours, theirs in zip(first[name], values, strict=True)]
            mean, width = statistics.mean(pairs), half_width(pairs)
            differences[f"{way} {name}"] = [round(mean, 4), round(width, 4)]
            shown = f"{mean_and_interval(mean, width, sign=True)}, {verdict(mean, width)}"
            print(f"{name}, {way} − {options.ways[0]}: {shown}")
    found = {"seeds": options.seeds, "scores": scores, "seconds": seconds, "differences": differences}
    print(json.dumps(found | {"bf16_in_hardware": multiplies_bf16()} | machine()))


if __name__ == "__main__":
    main()
