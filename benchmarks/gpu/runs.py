"""Whole runs: resumed with the same bits, on all GPUs, waiting for input, and inference end to end."""

import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.gpu.clock import peak_gb, seconds
from benchmarks.gpu.size import Row, Size
from benchmarks.gpu.step import Step
from fsr.checkpoint import TrainState
from fsr.compare import first_difference
from fsr.config import TrainConfig
from fsr.data.lists import Item, write_list
from fsr.data.loaders import train_loader
from fsr.data.palette import palette_png
from fsr.data.synthetic import synthesise
from fsr.data.voc import VocSource
from fsr.files import write_atomically
from fsr.infer import Inference
from fsr.inference.config import InferConfig
from fsr.prefetch import Prefetcher
from fsr.run import Run
from fsr.train import one_step, train

FEW = 8  # different photographs; so many warm an inference up


def resume(size: Size) -> Iterator[Row]:
    """A run that is stopped and resumed against one that is not, with 784 tokens a view as on VOC."""
    from tiny import tiny_config

    wide = {"crop_size": 448, "embed_dim": 192, "heads": 3, "block_size": 64} if size.on_gpu else {"crop_size": 64}
    kinds: dict[str, dict[str, Any]] = {
        "tf32": {"precision": "tf32"},
        "bf16, graphs, two micro-batches": {"precision": "bf16", "graphs": size.on_gpu, "ranks": 2},
        "bf16, views on the device, local crop": {"precision": "bf16", "augment": "device", "local_crops": 1},
    }
    with tempfile.TemporaryDirectory() as name:
        synthesise(Path(name), images=24)
        for kind, changes in kinds.items():
            shape = {"patch_size": 16, "block_size": 16, "depth": 4, "eval_every": 5, "local_crop_size": 32}
            yield kind, partial(resumed, tiny_config(Path(name), **(shape | wide | changes)))


def resumed(config: TrainConfig) -> dict[str, Any]:
    """The first difference from the uninterrupted run."""
    with tempfile.TemporaryDirectory() as folder:
        whole, broken = Run(Path(folder) / "whole"), Run(Path(folder) / "broken")
        train(config, whole)
        asked = itertools.count()
        train(config, broken, stop_requested=lambda: next(asked) == 6)
        train(config, broken)
        difference = first_difference(broken, whole)
    return {"first difference": difference or "none", "ok": difference is None}


def on_all_gpus(size: Size) -> Iterator[Row]:
    """Data-parallel training, one rank a GPU (see ranks.py)."""
    for graphs in (False, True) if size.on_gpu else (False,):
        yield "bf16, graphs" if graphs else "bf16", partial(ranks, size, graphs)


def ranks(size: Size, graphs: bool) -> dict[str, Any]:
    """What rank 0 says."""
    count = torch.cuda.device_count() if size.on_gpu else 2
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"]
    mode = ["real" if size.on_gpu else "dry", "graphs" if graphs else "none"]
    command = [*torchrun, "-m", "benchmarks.gpu.ranks", *mode]
    answer = subprocess.run(command, capture_output=True, text=True)
    if answer.returncode:
        raise RuntimeError(answer.stderr[-1500:])
    return json.loads(answer.stdout.splitlines()[-1])


def write_photographs(folder: Path, size: Size) -> None:
    """A set in VOC's layout, of as many photographs as are answered, and lists of them."""
    from pictures import picture, probabilities

    (folder / "VOCdevkit/VOC2012/JPEGImages").mkdir(parents=True)
    source, items = VocSource(folder), []
    photographs = [picture(*size.picture, seed) for seed in range(FEW)]
    truths = [probabilities(21, *size.picture, seed).argmax(0).astype(np.uint8) for seed in range(FEW)]
    for number in range(size.images):
        name, truth = f"{number:06d}", truths[number % FEW]
        Image.fromarray(photographs[number % FEW]).save(source.image_file(name, "val"), quality=95)
        write_atomically(source.mask_file(name, "val"), palette_png(truth))
        classes = [int(label) for label in np.bincount(truth.ravel()).argsort()[::-1] if label > 0][:2]
        items.append(Item(name, tuple(sorted(classes))))
    for name, some in (("val", items), ("val_few", items[:FEW]), ("train_aug", items)):
        write_list(source.list_folder / f"{name}.txt", some)


def inference(size: Size) -> Iterator[Row]:
    """Images a second, from JPEG files to label maps and scores: three scales with mirror."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_photographs(folder, size)
        config, run = size.config(1), Run(folder / "run")
        run.start(config)
        TrainState(config, torch.device("cpu")).save(run)
        for precision, crf in itertools.product(("bf16", "fp32"), (True, False)):
            row = partial(inferred, size, folder, run, precision=precision, crf=crf)
            yield f"{precision}, {'CRF' if crf else 'no CRF'}", row
        row = partial(inferred, size, folder, run, precision="bf16", crf=True, postprocess="cpu")
        yield "bf16, CRF on the CPU's threads", row


def inferred(size: Size, folder: Path, run: Run, **choice: Any) -> dict[str, Any]:
    """The second of two inferences in one process: the first starts the libraries."""
    cores = len(os.sched_getaffinity(0))
    for images in ("val_few", "val"):
        with tempfile.TemporaryDirectory() as out:
            inference = Inference(
                InferConfig(
                    dataset="voc",
                    checkpoint=run.checkpoint_file,
                    data_folder=folder,
                    infer_set=images,
                    output_folder=Path(out),
                    bkg_threshold=0.5,
                    batch_size=8,
                    workers=min(6, cores - 1),
                    threads=min(8, cores),
                    **choice,
                )
            )
            _ = inference.network  # loads it
            peak_gb(size)
            taken = seconds(partial(inference.answer_shard, 0), size)
    return {"images_s": round(size.images / taken, 1), "ms": round(1e3 * taken / size.images, 2)} | peak_gb(size)


def stalls(size: Size) -> Iterator[Row]:
    """Training on photographs: the share of the time in which the device waits for a batch."""
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as name:
        write_photographs(Path(name), size)
        for workers, augment in ((4, "workers"), (4, "device"), (max(cores - 1, 1), "workers")):
            quick = {"precision": "bf16", "graphs": size.on_gpu, "data_folder": Path(name), "augment": augment}
            config = size.config(size.batches[0], workers=workers, **quick)
            yield f"{workers} workers, views by the {augment}", partial(stalled, size, config)


def stalled(size: Size, config: TrainConfig) -> dict[str, Any]:
    """After some steps that fill the queues."""
    step, steps = Step(config, size), 24 if size.on_gpu else 2
    source = VocSource(config.data_folder)
    batches = train_loader(config, source, 0, 1, 0, 2 * steps)
    prefetcher = Prefetcher(batches, size.device)

    def some() -> None:
        for _ in range(steps):
            one_step(step.student, step.state, prefetcher.next(), config, size.device, step.graphs)

    some()
    prefetcher.waited_s()
    taken = seconds(some, size)
    found = {"ms": round(1e3 * taken / steps, 1), "stalled": round(prefetcher.waited_s() / taken, 4)}
    with contextlib.suppress(AttributeError):
        batches.close()  # its workers
    return found | {"images_s": round(steps * config.batch_size / taken, 1)}
