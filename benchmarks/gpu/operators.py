"""The machine's own rates, and the lattice operators: equal to the CPU's, the same bits, and how near the bandwidth."""

import dataclasses
import os
import platform
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.clock import kernels, peak_gb, times
from benchmarks.gpu.size import Row, Size
from fsr.arithmetic import use_arithmetic
from fsr.crf import INFERENCE, PSEUDO_LABEL, CRFSettings
from fsr.ops import bilateral_filter, mean_field

Operator = Callable[[Tensor, Tensor], Tensor]


def machine(size: Size) -> Iterator[Row]:
    """What the machine is, what it copies and multiplies."""
    yield "versions", lambda: versions(size)
    yield "copy", lambda: copies(size)
    for precision, kind in (("fp32", torch.float32), ("tf32", torch.float32), ("bf16", torch.bfloat16)):
        yield f"product in {precision}", partial(product, size, precision, kind)


def versions(size: Size) -> dict[str, Any]:
    """Versions, cores, and whether the operators have kernels here."""
    kind = "CUDA" if size.on_gpu else "CPU"
    found = {"torch": torch.__version__, "python": platform.python_version(), "cores": len(os.sched_getaffinity(0))}
    if size.on_gpu:
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "gpus": torch.cuda.device_count(),
        }
        found |= {"memory_gb": round(properties.total_memory / 1e9), "processors": properties.multi_processor_count}
    operators = ("bilateral_filter", "mean_field", "pixel_adaptive")
    native = [name for name in operators if torch._C._dispatch_has_kernel_for_dispatch_key(f"fsr::{name}", kind)]
    return found | {"native": ", ".join(native), "ok": {"bilateral_filter", "mean_field"} <= set(native)}


def copies(size: Size) -> dict[str, float]:
    """Bytes read and written a second by a copy of 4 GB."""
    source = torch.ones(size.matrix**2 * 16, device=size.device)
    target = torch.empty_like(source)
    taken = times(lambda: target.copy_(source), size)
    return taken | {"gb_s": round(2 * source.nbytes / taken["ms"] / 1e6)}


def product(size: Size, precision: str, kind: torch.dtype) -> dict[str, float]:
    """Operations a second of a large product."""
    use_arithmetic(precision, deterministic=False)
    factor = torch.randn(size.matrix, size.matrix, device=size.device, dtype=kind)
    taken = times(lambda: factor @ factor, size)
    return taken | {"tflop_s": round(2 * size.matrix**3 / taken["ms"] / 1e9, 1)}


def equality(size: Size) -> Iterator[Row]:
    """Both operators against the CPU's; and the same bits on every run, for one image, on a stream, in a graph."""
    shapes = [(1, 3, 17, 23, 15, 10), (2, 21, 19, 11, 15, 10), (2, 81, 11, 13, 15, 10), (1, 33, 11, 13, 15, 10)]
    shapes += [(3, 5, 40, 30, 0.5, 0.5), (1, 2, 1, 1, 15, 10), (3, 2, 1, 37, 15, 10), (2, 21, 96, 80, 300, 300)]
    if size.on_gpu:
        shapes += [(8, 21, 224, 224, 15, 50), (2, 81, 224, 224, 15, 50)]
    for batch, channels, height, width, rgb, xy in shapes:
        generator = torch.Generator().manual_seed(0)
        image = (torch.rand(batch, 3, height, width, generator=generator) * 256).floor()
        values = torch.rand(batch, channels, height, width, generator=generator) - 0.3
        work = partial(bilateral_filter, sigma_rgb=rgb, sigma_xy=xy)
        name = f"filter {batch}×{channels}×{height}×{width}, σ {rgb}, {xy}"
        yield name, partial(compare, size, work, image, values, 2e-6)
    wide = dataclasses.replace(INFERENCE, spatial_std=9.0)
    for name, settings in (("inference", INFERENCE), ("pseudo label", PSEUDO_LABEL), ("wide", wide)):
        image = size.pictures(2, *size.picture).cpu()
        logits = (4 * torch.rand(2, 21, *size.picture)).log_softmax(1)
        yield f"CRF, {name}", partial(compare, size, crf(settings), image, logits, 2e-4)
        flat = torch.full_like(image, 120.0)
        yield f"CRF, {name}, one colour", partial(compare, size, crf(settings), flat, logits, 2e-4)


def crf(settings: CRFSettings) -> Operator:
    """The mean field with these settings."""
    return lambda image, logits: mean_field(image, logits, **dataclasses.asdict(settings))


def compare(size: Size, work: Operator, image: Tensor, values: Tensor, tolerance: float) -> dict[str, Any]:
    """How far from the CPU, and whether the bits are the same however it is called."""
    on_cpu = work(image, values)
    image, values = image.to(size.device), values.to(size.device)
    first = work(image, values)
    same = {"again": torch.equal(work(image, values), first)}
    same["alone"] = torch.equal(
        torch.cat([work(image[i : i + 1], values[i : i + 1]) for i in range(len(image))]), first
    )
    if size.on_gpu:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            elsewhere = work(image, values)
        torch.cuda.current_stream().wait_stream(stream)
        same["stream"] = torch.equal(elsewhere, first)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = work(image, values)
        values.copy_(values.flip(1))
        image.copy_(image.flip(2))
        graph.replay()
        same["graph"] = torch.equal(captured, work(image, values))
    error = ((first.cpu() - on_cpu).abs().max() / on_cpu.abs().max()).item()
    return {"error": float(f"{error:.1e}"), **same, "ok": error <= tolerance and all(same.values())}


def speed(size: Size) -> Iterator[Row]:
    """Both operators on photographs and, the worst for a lattice, on one colour."""
    for batch, channels in ((2, 21), (8, 21), (8, 81)):
        work = partial(bilateral_filter, sigma_rgb=15.0, sigma_xy=50.0)
        yield from timed(size, f"filter {batch}×{channels}", work, batch, channels, (size.side, size.side))
    for batch in (1, 8, 32) if size.on_gpu else (1,):
        yield from timed(size, f"CRF {batch}×21", crf(INFERENCE), batch, 21, size.picture)
    yield from timed(size, "CRF, pseudo label, 8×21", crf(PSEUDO_LABEL), 8, 21, size.picture)


def timed(size: Size, name: str, work: Operator, batch: int, channels: int, shape: tuple[int, int]) -> Iterator[Row]:
    """A photograph and one colour."""

    def row(flat: bool) -> dict[str, Any]:
        image = size.pictures(batch, *shape)
        image = torch.full_like(image, 120.0) if flat else image
        values = torch.rand(batch, channels, *shape, device=size.device).mul(6).log_softmax(1)
        call = partial(work, image, values)
        peak_gb(size)
        found = times(call, size) | {"images_s": 0.0} | peak_gb(size)
        found["images_s"] = round(1e3 * batch / found["ms"], 1)
        return found | {"bytes": image.nbytes + 2 * values.nbytes} | kernels(call, size, top=6)

    yield f"{name}, photograph", partial(row, False)
    yield f"{name}, one colour", partial(row, True)
