"""The native dense CRF against pydensecrf: one image on all cores and on one thread, and a folder of images.

    python benchmarks/dense_crf.py

500×375 pixels, 21 labels, 10 iterations, the inference settings. One image: both take turns; medians. The folder:
arrays on disk, read by both; `dense_crf_stream` against a pool of processes with pydensecrf, as many as there are
cores, taking turns every 25 images; the median of the turns' ratios. The last line is JSON.
"""

import json
import multiprocessing
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from machine import interleaved, machine, medians, seconds
from pictures import picture, probabilities

from fsr.crf import dense_crf, dense_crf_batch, dense_crf_stream

HEIGHT, WIDTH, CLASSES = 375, 500, 21
TURN = 25


@dataclass(frozen=True)
class Options:
    """Time the dense CRF."""

    repeats: int = 11
    """Times that one image is measured."""
    images: int = 200
    """In the folder; rounded down to turns of 25."""
    cores: int = 2
    """Threads of ours, processes of pydensecrf."""


def main() -> None:
    """Measure and print."""
    options = tyro.cli(Options)
    image, scores = picture(HEIGHT, WIDTH, 0), probabilities(CLASSES, HEIGHT, WIDTH, 0)
    ours, theirs = dense_crf(image, scores), dense_crf(image, scores, backend="pydensecrf")
    agreement = float((ours.argmax(0) == theirs.argmax(0)).mean())
    print(f"marginals at most {abs(ours - theirs).max():.1e} apart, {agreement:.3%} of the labels agree")

    def native(threads: int) -> None:
        torch.set_num_threads(threads)
        dense_crf(image, scores)

    kinds = {
        "cores": lambda: native(options.cores),
        "one": lambda: native(1),
        "pydensecrf": lambda: dense_crf(image, scores, backend="pydensecrf"),
    }
    times = medians(interleaved(kinds, options.repeats))
    for name, taken in times.items():
        print(f"one image, {name}: {1e3 * taken:.0f} ms")
    torch.set_num_threads(options.cores)
    folder = time_folder(options)
    result = {
        f"speedup_{options.cores}_cores": round(times["pydensecrf"] / times["cores"], 2),
        "speedup_1_thread": round(times["pydensecrf"] / times["one"], 2),
        "speedup_folder": round(statistics.median(b / a for a, b in folder), 2),
        "folder_images_per_s": round(TURN / statistics.median(a for a, _ in folder), 2),
        "folder_pydensecrf_images_per_s": round(TURN / statistics.median(b for _, b in folder), 2),
        "images": len(folder) * TURN,
        "ms": {name: round(1e3 * taken, 1) for name, taken in times.items()},
        "label_agreement": agreement,
    }
    if torch.cuda.is_available():
        result["gpu_ms"] = on_gpu(options)
    print(json.dumps(result | machine()))


def time_folder(options: Options) -> list[tuple[float, float]]:
    """Seconds of each turn, ours and pydensecrf's."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name, context.Pool(options.cores, torch.set_num_threads, (1,)) as pool:
        for seed in range(TURN):
            np.save(Path(name, f"image_{seed}.npy"), picture(HEIGHT, WIDTH, seed))
            np.save(Path(name, f"scores_{seed}.npy"), probabilities(CLASSES, HEIGHT, WIDTH, seed))
        files = [(name, seed) for seed in range(TURN)]
        pool.map(with_pydensecrf, files[: options.cores], chunksize=1)
        turns = []
        for turn in range(options.images // TURN):
            ours = seconds(lambda: [None for _ in dense_crf_stream(read(files), workers=options.cores)])
            theirs = seconds(lambda: pool.map(with_pydensecrf, files, chunksize=1))
            print(f"turn {turn}: {TURN} images in {ours:.2f} s, pydensecrf in {theirs:.2f} s", flush=True)
            turns.append((ours, theirs))
    return turns


def read(files: list[tuple[str, int]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images and probabilities of a folder."""
    for folder, seed in files:
        yield np.load(Path(folder, f"image_{seed}.npy")), np.load(Path(folder, f"scores_{seed}.npy"))


def with_pydensecrf(file: tuple[str, int]) -> None:
    """What a process of the pool does."""
    for image, scores in read([file]):
        dense_crf(image, scores, backend="pydensecrf")


def on_gpu(options: Options) -> dict[str, float]:
    """Milliseconds of one image and of a batch of 8 on the GPU: pictures, 40 % of them white, and plain surfaces."""
    pictures = torch.stack([torch.from_numpy(picture(HEIGHT, WIDTH, seed)) for seed in range(8)])
    pictures = pictures.permute(0, 3, 1, 2).cuda()
    white = pictures.clone()
    white[:, :, : 2 * HEIGHT // 5] = 255
    surfaces = {"pictures": pictures, "white": white, "plain": torch.full_like(pictures, 120)}
    scores = torch.stack([torch.from_numpy(probabilities(CLASSES, HEIGHT, WIDTH, seed)) for seed in range(8)]).cuda()
    kinds = {
        f"{batch} {name}": (lambda i=images[:batch], s=scores[:batch]: dense_crf_batch(i, s))
        for batch in (1, 8)
        for name, images in surfaces.items()
    }
    times = medians(interleaved(kinds, options.repeats))
    for name, taken in times.items():
        print(f"GPU, {name}: {1e3 * taken:.2f} ms")
    return {name: round(1e3 * taken, 2) for name, taken in times.items()}


if __name__ == "__main__":
    main()
