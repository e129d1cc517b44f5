"""A training step against the reference of tests/reference_step.py: time by part, images/s, memory, share of the limit.

    python benchmarks/train_step.py
    python benchmarks/train_step.py --model vit_base_patch16_224 --size 448 --batch 1 --repeats 1 --parts False

All kinds take turns in one process; times are medians. The step is one with uncertain masks and all losses, the
costliest of a run; a run's first fifth, with random masks, is shown beside it. The limit is the rate of the largest
matrix product that is measured here in the same precision. Where bf16 is slower than float32 by its matrix products
alone, its step is left out. Peak memory is that of two steps in a process of their own. The last line is JSON.
"""

import dataclasses
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import torch
import tyro
from machine import interleaved, machine, medians, seconds
from pictures import picture
from rich.console import Console
from rich.table import Table
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.flop_counter import FlopCounterMode

from fsr import step as step_module
from fsr.arithmetic import use_arithmetic
from fsr.config import TrainConfig, voc
from fsr.ema import update_teacher
from fsr.losses.self_reinforcement import SelfReinforcement
from fsr.masking import block_noise
from fsr.models.network import Network
from fsr.optim import build_optimizer, set_learning_rates
from fsr.step import Batch, step_losses

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from reference_step import reference_losses

UNCERTAIN, RANDOM = 5000, 0  # steps of 20 000
TRIALS = 3
PROFILED = 3
# Parts of the fast step: where the function is looked up, and its name.
PARTS = {
    "CAM of view 2": (step_module, "view2_cam"),
    "teacher": (Network, "targets"),
    "student, forward": (Network, "forward"),
    "CAM of view 1": (step_module, "view1_cams"),
    "pseudo label": (step_module, "pseudo_label_of"),
    "self-reinforcement": (SelfReinforcement, "forward"),
    "affinity": (step_module, "affinity_loss"),
    "segmentation": (step_module, "segmentation_loss"),
    "energy": (step_module, "energy_loss"),
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Time the training step."""

    model: str = "vit_small_patch16_224"
    """Backbone, a ViT of timm."""
    size: int = 224
    """Side of the views in pixels."""
    batch: int = 2
    """Images of a step."""
    repeats: int = 5
    """Times that each kind is measured."""
    threads: int = len(os.sched_getaffinity(0))
    """Of torch."""
    compile: bool = False
    """Measure the compiled step as well."""
    parts: bool = True
    """Count the operations and time the parts of a step as well."""
    linearity: bool = True
    """Measure other batches and sizes as well."""
    start_up: bool = True
    """Measure a trial's start as well."""
    memory_of: str | None = None
    """Only measure the peak memory of this kind."""

    def config(self, **changes: str | int | bool) -> TrainConfig:
        """The paper's settings in this size and in float32, without drop path, which the reference does not have."""
        side = self.size // 7 if self.size % 112 == 0 else 16
        own = {"backbone": self.model, "crop_size": self.size, "batch_size": self.batch, "block_size": side}
        own |= {"pretrained": "none", "precision": "fp32", "drop_path": 0.0}
        return dataclasses.replace(voc(), **(own | changes))


class Trained:
    """A student and a teacher, and the two ways to take a step with them."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.manual_seed(0)
        self.student = Network(config).to(device).train()
        self.teacher = Network(config).to(device).requires_grad_(False)
        self.teacher.load_state_dict(self.student.state_dict())
        if config.compile:
            for network in (self.student, self.teacher):
                network.encoder.compile_blocks()
        self.optimizer = build_optimizer(self.student, config)
        self.reinforcement = SelfReinforcement(config.out_dim).to(device)
        self.centres = {name: torch.zeros(config.out_dim, device=device) for name in ("class", "patch")}
        views = (
            torch.stack([view(config.crop_size, first + i) for i in range(config.batch_size)]).to(device)
            for first in (0, 100)
        )
        labels = torch.zeros(config.batch_size, config.num_classes - 1)
        labels[:, [3, 7]] = 1
        self.batch = Batch(*views, labels.to(device), [], 2)
        self.noise = block_noise(config.batch_size, config).to(device)

    def fast(self, step: int = UNCERTAIN) -> None:
        """One step of fsr/step.py, computed as training does."""
        use_arithmetic(self.config.precision, deterministic=self.config.deterministic)
        parts = self.student, self.teacher, self.reinforcement
        self.learn(step_losses(*parts, self.batch, self.noise, step, self.config))

    def reference(self) -> None:
        """One step of tests/reference_step.py, as torch computes where nothing is asked of it."""
        torch.use_deterministic_algorithms(False)
        parts = self.student, self.teacher, self.centres
        self.learn(reference_losses(*parts, self.batch[:3], self.noise, UNCERTAIN, self.config))

    def learn(self, losses: dict[str, torch.Tensor]) -> None:
        """Backward pass, optimizer and EMA."""
        self.optimizer.zero_grad()
        with record_function("backward"):
            losses["loss"].backward()
        self.reinforcement.update_centres()
        with record_function("optimizer and EMA"):
            set_learning_rates(self.optimizer, 0, self.config)
            self.optimizer.step()
            update_teacher(self.teacher, self.student, 0.9995)


def view(size: int, seed: int) -> torch.Tensor:
    """A picture-like view [3, size, size], normalised about as in training."""
    return (torch.from_numpy(picture(size, size, seed)).permute(2, 0, 1).float() - 118) / 57


def main() -> None:
    """Measure and print."""
    options = tyro.cli(Options, config=(tyro.conf.FlagConversionOff,))
    torch.set_num_threads(options.threads)
    if options.memory_of:
        print(peak_memory_mb(options))
        return
    exact = Trained(options.config())
    rates = {name: matmul_rate(kind) for name, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16))}
    print("matrix products: " + ", ".join(f"{rate / 1e9:.0f} GFLOP/s in {name}" for name, rate in rates.items()))
    kinds: dict[str, Callable[[], object]] = {
        "reference, fp32": exact.reference,
        "fp32": exact.fast,
        "fp32, random masks": lambda: exact.fast(RANDOM),
    }
    if rates["bf16"] > rates["fp32"]:
        kinds["bf16"] = Trained(options.config(precision="bf16")).fast
    else:
        print(f"bf16 is left out: its matrix products alone are {rates['fp32'] / rates['bf16']:.0f} times slower here")
    if options.compile:
        compiled = Trained(options.config(compile=True, drop_path=voc().drop_path))
        print(
            f"compiled: the first step takes {seconds(compiled.fast):.0f} s, the second {seconds(compiled.fast):.0f} s"
        )
        kinds["fp32, drop path"] = Trained(options.config(drop_path=voc().drop_path)).fast
        kinds["fp32, drop path, compiled"] = compiled.fast
    times = medians(interleaved(kinds, options.repeats))
    table = Table("step", "s", "images/s", "× reference")
    for name, taken in times.items():
        speedup = times["reference, fp32"] / taken
        table.add_row(name, f"{taken:.2f}", f"{options.batch / taken:.2f}", f"{speedup:.2f}")
    Console().print(table)
    peak = {kind: memory_in_own_process(options, kind) for kind in ("reference", "fast")}
    print("peak memory: " + ", ".join(f"{kind} {mb:.0f} MB" for kind, mb in peak.items()))
    result = {
        "speedup_fp32": round(times["reference, fp32"] / times["fp32"], 3),
        "speedup_bf16": round(times["reference, fp32"] / times["bf16"], 3) if "bf16" in times else None,
        "speedup_compiled": round(times["fp32, drop path"] / times["fp32, drop path, compiled"], 3)
        if options.compile
        else None,
        "speedup_random_masks": round(times["reference, fp32"] / times["fp32, random masks"], 3),
        "peak_memory_ratio": round(peak["fast"] / peak["reference"], 3),
    }
    if options.parts:
        flops = count_flops(exact)
        result["tflop"] = {name: round(flops[name] / 1e12, 3) for name in times}
        result["share_of_limit"] = {
            name: round(flops[name] / taken / rates["bf16" if name == "bf16" else "fp32"], 3)
            for name, taken in times.items()
        }
        print("arithmetic: " + ", ".join(f"{name} {value} TFLOP" for name, value in result["tflop"].items()))
        print("share of the limit: " + ", ".join(f"{name} {s:.0%}" for name, s in result["share_of_limit"].items()))
        Console().print(breakdown(exact))
    if options.linearity:
        result["seconds_by_batch_and_size"] = linearity(options)
    if options.start_up:
        result["start_up_s"] = start_up_s(options)
        print(f"a trial's start, from the command to the end of the first step: {result['start_up_s']} s")
    settings = {"model": options.model, "size": options.size, "batch": options.batch, "threads": options.threads}
    print(json.dumps(result | settings | machine()))


def matmul_rate(kind: torch.dtype) -> float:
    """FLOP/s of the fastest square matrix product, of those that take no longer than a fifth of a second."""
    best = 0.0
    for side in (256, 512, 1024, 2048, 4096):
        a = torch.randn(side, side, dtype=kind, device="cuda" if torch.cuda.is_available() else "cpu")
        first = seconds(lambda a=a: a @ a)
        best = max(best, *(2 * side**3 / seconds(lambda a=a: a @ a) for _ in range(min(50, math.ceil(1 / first)))))
        if 8 * first > 0.2:
            break
    return best


def count_flops(trained: Trained) -> dict[str, int]:
    """Floating-point operations of the products in each kind of step."""
    work = {
        "reference, fp32": trained.reference,
        "fp32": trained.fast,
        "fp32, random masks": lambda: trained.fast(RANDOM),
    }
    counts = {}
    for name, step in work.items():
        # The counter does not know the CPU's fused attention, but what it is made of.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            step()
        counts[name] = counter.get_total_flops()
    return counts | {kind: counts["fp32"] for kind in ("bf16", "fp32, drop path", "fp32, drop path, compiled")}


def breakdown(trained: Trained) -> Table:
    """Time of each part of a fast step; a part within another is counted to the inner one."""
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_available()
    names = (*PARTS, "backward", "optimizer and EMA", "step")
    steps = []
    for _ in range(PROFILED):
        with named_parts(), profile(activities=activities) as profiled, record_function("step"):
            trained.fast()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
        events = [event for event in profiled.key_averages() if event.key in names]
        steps.append({event.key: max(event.cpu_time_total, event.device_time_total) / 1e6 for event in events})
    spent = min(steps, key=lambda step: step["step"])  # the one that the rest of the machine disturbed least
    spent["other"] = 2 * spent["step"] - sum(spent.values())
    table = Table("part of the fp32 step", "s", "share")
    for name in (*PARTS, "backward", "optimizer and EMA", "other"):
        table.add_row(name, f"{spent[name]:.3f}", f"{spent[name] / spent['step']:.1%}")
    return table


@contextmanager
def named_parts() -> Iterator[None]:
    """Let the profiler see the parts of a step by name."""

    def named(name: str, work: Callable) -> Callable:
        def call(*arguments, **options) -> object:
            with record_function(name):
                return work(*arguments, **options)

        return call

    with ExitStack() as stack:
        for name, (owner, attribute) in PARTS.items():
            stack.enter_context(patch.object(owner, attribute, named(name, getattr(owner, attribute))))
        yield


def peak_memory_mb(options: Options) -> float:
    """Peak memory of two steps of the kind `memory_of`: of the device, or on a CPU of this process."""
    trained = Trained(options.config())
    for _ in range(2):  # the second step has the optimizer's state as well
        getattr(trained, options.memory_of)()
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


def memory_in_own_process(options: Options, kind: str) -> float:
    """Peak memory in MB of one kind of step."""
    what = {"model": options.model, "size": options.size, "batch": options.batch, "threads": options.threads}
    flags = [word for name, value in what.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, __file__, *flags, "--memory_of", kind]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def linearity(options: Options) -> dict[str, float]:
    """Seconds of the fast step for other batches and sizes, beside what the first would have made of them."""
    table = Table("batch", "size", "s", "s per image", "s per image and 224² pixels", "tokens an image")
    result = {}
    for batch, size in ((1, 224), (2, 224), (4, 224), (2, 112), (2, 336), (2, 448)):
        trained = Trained(dataclasses.replace(options, batch=batch, size=size).config())
        trained.fast()
        taken = statistics.median(seconds(trained.fast) for _ in range(3))
        each = taken / batch
        row = (f"{taken:.2f}", f"{each:.2f}", f"{each / (size / 224) ** 2:.2f}", str((size // 16) ** 2))
        table.add_row(str(batch), str(size), *row)
        result[f"{batch} × {size}"] = round(taken, 3)
    Console().print(table)
    return result


def start_up_s(options: Options) -> float:
    """Median seconds from the command of a synthetic trial to the end of its first step."""
    with tempfile.TemporaryDirectory() as folder:
        make = [sys.executable, "-m", "fsr.data.synthetic", f"{folder}/data", "--images", "100"]
        subprocess.run(make, check=True, capture_output=True)
        taken = []
        for trial in range(TRIALS):
            run = ["--data_folder", f"{folder}/data", "--run_folder", f"{folder}/{trial}", "--log_every", "1"]
            command = [sys.executable, "-m", "fsr.train", "synthetic", *run, "--seed", str(trial)]
            environment = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
            started = time.perf_counter()
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
                for line in process.stdout:
                    if line.startswith("step 1/"):
                        taken.append(time.perf_counter() - started)
                        process.terminate()
    return round(statistics.median(taken), 2)


if __name__ == "__main__":
    main()
