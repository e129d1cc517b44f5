"""The training step: the same bits in every mode, and its speed, of the reference and of ours."""

import gc
import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.gpu.clock import kernels, peak_gb, seconds, times
from benchmarks.gpu.size import Row, Size
from fsr.arithmetic import use_arithmetic
from fsr.checkpoint import TrainState
from fsr.config import TrainConfig
from fsr.graphs import Graphs
from fsr.step import Batch
from fsr.train import one_step

LATE = 5000  # of 20 000: uncertain masks and all losses, the costliest kind of step


class Step:
    """What training does between two batches, with one batch again and again."""

    def __init__(self, config: TrainConfig, size: Size) -> None:
        from train_step import view

        use_arithmetic(config.precision, deterministic=config.deterministic)
        self.config, self.device = config, size.device
        with size.device:  # drawing the weights there takes no time
            self.state = TrainState(config, size.device)
        self.state.step = LATE
        self.state.student.train()
        self.state.teacher.train()
        self.student: torch.nn.Module = self.state.student
        self.graphs = Graphs() if config.graphs else None
        number = range(config.batch_size)
        views = (torch.stack([view(config.crop_size, first + i) for i in number]) for first in (0, 100))
        labels = torch.zeros(config.batch_size, config.num_classes - 1)
        labels[:, [3, 7]] = 1
        self.batch = Batch(*(images.to(size.device) for images in (*views, labels)), [], 2)

    def __call__(self) -> None:
        """One step."""
        one_step(self.student, self.state, self.batch, self.config, self.device, self.graphs)


def speed(size: Size) -> Iterator[Row]:
    """Milliseconds of a step by batch and mode, host and device; memory and kernels."""
    graphs, most = {"graphs": size.on_gpu}, size.batches[0]
    loose = {"deterministic": False}
    modes: dict[str, dict[str, Any]] = {
        "bf16": {"precision": "bf16"},
        "tf32": {"precision": "tf32"},
        "tf32, graphs": {"precision": "tf32", **graphs},
        "bf16, graphs": {"precision": "bf16", **graphs},
        "bf16, not deterministic": {"precision": "bf16", **loose},
        "tf32, not deterministic": {"precision": "tf32", **loose},
        "fp32": {"precision": "fp32"},
        "bf16, compiled": {"precision": "bf16", "compile": True},
        "bf16, compiled, graphs": {"precision": "bf16", "compile": True, **graphs},
        "tf32, compiled, graphs": {"precision": "tf32", "compile": True, **graphs},
    }
    yield "reference, fp32", partial(reference, size, most)
    for name, changes in modes.items():
        yield name, partial(measure, size, most, name == "bf16", changes)
    for batch in size.batches[1:]:
        yield f"reference, fp32, batch {batch}", partial(reference, size, batch)
        for name, changes in modes.items():
            if name not in ("fp32", "bf16, compiled") and "deterministic" not in changes:
                yield f"{name}, batch {batch}", partial(measure, size, batch, False, changes)


def measure(size: Size, batch: int, with_top: bool, changes: dict[str, Any]) -> dict[str, Any]:
    """A step of training."""
    gc.collect()
    peak_gb(size)
    step = Step(size.config(batch, **changes), size)
    first = seconds(step, size)
    found = {"batch": batch, "first_s": round(first, 1)} | times(step, size, warm=3) | peak_gb(size)
    return found | kernels(step, size, top=12 if with_top else 0)


def reference(size: Size, batch: int) -> dict[str, Any]:
    """A step of tests/reference_step.py, and what both count of arithmetic."""
    from train_step import Trained, count_flops

    gc.collect()
    peak_gb(size)
    use_arithmetic("fp32", deterministic=False)
    with size.device:
        trained = Trained(size.config(batch, precision="fp32", drop_path=0.0))
    found = {"batch": batch} | times(trained.reference, size, repeats=2, warm=1) | peak_gb(size)
    flops = count_flops(trained)
    named = {"tflop": flops["reference, fp32"], "tflop_of_ours": flops["fp32"]}
    return found | {name: round(count / 1e12, 3) for name, count in named.items()}


def bits(size: Size) -> Iterator[Row]:
    """Some steps twice from the same start, and with graphs against without."""
    batch = size.batches[-1]
    for precision in ("fp32", "tf32", "bf16"):
        yield precision, partial(twice, size, batch, {"precision": precision}, {})
    quick = {"precision": "bf16", "graphs": size.on_gpu}
    yield "bf16, graphs", partial(twice, size, batch, quick, {})
    yield "bf16, graphs against none", partial(twice, size, batch, quick, {"graphs": False})
    yield "bf16, compiled, graphs", partial(twice, size, batch, {**quick, "compile": True}, {})


def twice(size: Size, batch: int, changes: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """How many tensors of the student differ after five steps."""
    ends = []
    for own in (changes, changes | others):
        step = Step(size.config(batch, **own), size)
        for _ in range(5):
            step()
        ends.append([tensor.detach().clone() for tensor in step.state.student.state_dict().values()])
        del step
    pairs = list(zip(*ends, strict=True))
    differ = sum(not torch.equal(one, other) for one, other in pairs)
    return {"differ": differ, "of": len(pairs), "ok": differ == 0}


def attention_bits(size: Size) -> Iterator[Row]:
    """Fused attention's gradients ten times, deterministic and not."""
    shapes = {"784 tokens": (4, 12, 784, 64), "144 tokens": (16, 3, 144, 32), "16 tokens": (4, 2, 16, 8)}
    for (name, shape), kind, asked in itertools.product(shapes.items(), (torch.float32, torch.bfloat16), (True, False)):
        how = "deterministic" if asked else "not"
        row = partial(attention, size, shape if size.on_gpu else (2, 2, 16, 8), kind, asked)
        yield f"{name}, {str(kind).removeprefix('torch.')}, {how}", row


def attention(size: Size, shape: tuple[int, ...], kind: torch.dtype, deterministic: bool) -> dict[str, Any]:
    """Which of ten runs give other gradients than the first."""
    use_arithmetic("fp32", deterministic=deterministic)
    q, k, v = (torch.randn(shape, device=size.device, dtype=kind, requires_grad=True) for _ in range(3))
    gradient = torch.randn(shape, device=size.device, dtype=kind)

    def run() -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(F.scaled_dot_product_attention(q, k, v), (q, k, v), gradient)

    first = run()
    differ = sum(not all(map(torch.equal, run(), first)) for _ in range(9))
    return {"differ": differ, "of": 9, "ms": times(run, size)["ms"]} | ({"ok": differ == 0} if deterministic else {})
