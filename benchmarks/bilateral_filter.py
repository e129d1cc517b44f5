"""The bilateral filter of a training step against pydensecrf's CRF, the plain-torch reference and a memory copy.

    python benchmarks/bilateral_filter.py

Batch 2, 224×224 (half of a 448-pixel crop), σ_rgb 15, σ_xy 50, 21 and 81 channels, lattice built anew in each call
as in training. pydensecrf: one 500×375 image, 21 labels, 10 iterations, the inference settings. All take turns; times
are medians. The floor is what must be moved at least (image and values in, result out) at the bandwidth of a copy.
The last line is JSON.
"""

import json
from dataclasses import dataclass

import torch
import tyro
from machine import interleaved, machine, medians
from pictures import picture, probabilities

from fsr.crf import dense_crf
from fsr.ops import bilateral_filter, reference

CHANNELS = (21, 81)
SIGMA_RGB, SIGMA_XY = 15.0, 50.0
COPIED_MB = 256


@dataclass(frozen=True)
class Options:
    """Time the bilateral filter."""

    repeats: int = 21
    """Times that each is measured."""
    threads: int = 2
    """Of torch."""


def main() -> None:
    """Measure and print."""
    options = tyro.cli(Options)
    torch.set_num_threads(options.threads)
    images = torch.stack([torch.from_numpy(picture(224, 224, seed)) for seed in range(2)]).permute(0, 3, 1, 2).float()
    values = {
        channels: torch.stack([torch.from_numpy(probabilities(channels, 224, 224, seed)) for seed in range(2)])
        for channels in CHANNELS
    }
    photo, labels = picture(375, 500, 2), probabilities(21, 375, 500, 2)
    source = torch.zeros(COPIED_MB * 2**20 // 4)
    target = torch.zeros_like(source)
    kinds = {
        f"native, {c} channels": (lambda v=v: bilateral_filter(images, v, SIGMA_RGB, SIGMA_XY))
        for c, v in values.items()
    }
    kinds["pydensecrf's CRF"] = lambda: dense_crf(photo, labels, backend="pydensecrf")
    kinds["reference, 21 channels"] = lambda: reference.bilateral_filter(images, values[21], SIGMA_RGB, SIGMA_XY)
    kinds["copy"] = lambda: target.copy_(source)
    times = medians(interleaved(kinds, options.repeats))

    bandwidth = 2 * source.nbytes / times["copy"]
    crf = times["pydensecrf's CRF"]
    result = {"fraction_of_pydensecrf": round(times["native, 21 channels"] / crf, 5)}
    print(f"a copy moves {bandwidth / 1e9:.1f} GB/s; pydensecrf's CRF takes {1e3 * crf:.0f} ms")
    print(f"reference, 21 channels: {1e3 * times['reference, 21 channels']:.1f} ms")
    for channels in CHANNELS:
        taken = times[f"native, {channels} channels"]
        floor = (images.nbytes + 2 * values[channels].nbytes) / bandwidth
        print(
            f"native, {channels} channels: {1e3 * taken:.2f} ms = {taken / crf:.2%} of pydensecrf's CRF; "
            f"floor {1e3 * floor:.2f} ms, {floor / taken:.1%} of the time"
        )
        result |= {f"ms_{channels}": round(1e3 * taken, 2), f"floor_ms_{channels}": round(1e3 * floor, 2)}
    if torch.cuda.is_available():
        result |= on_gpu(options)
    result |= {"pydensecrf_ms": round(1e3 * crf, 1), "copy_gb_per_s": round(bandwidth / 1e9, 1)}
    print(json.dumps(result | {"threads": options.threads} | machine()))


def on_gpu(options: Options) -> dict[str, float]:
    """Milliseconds of a batch of 8 on the GPU."""
    image = (
        torch.stack([torch.from_numpy(picture(224, 224, seed)) for seed in range(8)]).permute(0, 3, 1, 2).float().cuda()
    )
    source = torch.zeros(2**28, device="cuda")
    values = {c: torch.rand(8, c, 224, 224, device="cuda").softmax(1) for c in CHANNELS}
    kinds = {str(c): (lambda v=v: bilateral_filter(image, v, SIGMA_RGB, SIGMA_XY)) for c, v in values.items()}
    times = medians(interleaved(kinds | {"copy": source.clone}, options.repeats))
    bandwidth = 2 * source.nbytes / times["copy"]
    result = {}
    for c, v in values.items():
        floor = (image.nbytes + 2 * v.nbytes) / bandwidth
        print(f"GPU, batch 8, {c} channels: {1e3 * times[str(c)]:.2f} ms; {floor / times[str(c)]:.1%} of bandwidth")
        result |= {f"gpu_ms_{c}": round(1e3 * times[str(c)], 2), f"gpu_fraction_{c}": round(floor / times[str(c)], 4)}
    return result


if __name__ == "__main__":
    main()
