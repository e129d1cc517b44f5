"""What counting errors costs an inference: CPU time of one thread for an image.

    python benchmarks/error_counts.py
    python benchmarks/error_counts.py --preset voc --height 375 --width 500 --repeats 2

The network is not trained: the preset's own, for VOC a ViT-S/16. It sees three scales with their flips; the
postprocessing makes CAMs, CRF, counts and errors. CPU time, which other work on the machine changes little; the least
of the repeats. The last line is JSON; `share` is the errors' of everything else.
"""

import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from machine import machine
from pictures import picture, probabilities

from fsr.calibration import confidence_of
from fsr.config import synthetic, voc
from fsr.inference.config import InferConfig, Thresholds
from fsr.inference.finisher import sparse
from fsr.inference.multi_scale import MultiScale, multi_scale_inference
from fsr.inference.postprocess import Postprocessor
from fsr.models.network import Network


@dataclass(frozen=True)
class Options:
    """Time the counts."""

    preset: Literal["synthetic", "voc"] = "synthetic"
    """Whose network and classes."""
    height: int = 128
    """Of the image, in pixels."""
    width: int = 128
    """Of the image, in pixels."""
    repeats: int = 10
    """Of which the least counts."""


def main() -> None:
    """Measure and print."""
    options = tyro.cli(Options)
    torch.set_num_threads(1)
    config = synthetic() if options.preset == "synthetic" else voc()
    if options.preset == "voc":
        config = dataclasses.replace(config, backbone="vit_small_patch16_224", pretrained="none")
    classes, sides = config.num_classes, (options.height, options.width)
    torch.manual_seed(0)
    network = Network(config).eval()
    image = torch.from_numpy(picture(*sides, 0)).permute(2, 0, 1)[None]
    truth = torch.from_numpy(probabilities(classes, *sides, 0).argmax(0).astype(np.uint8))[None]
    shown = torch.zeros(1, classes - 1)
    shown[0, :2] = 1
    inference = InferConfig(dataset=options.preset, checkpoint=Path("best.pt"), data_folder=Path("data"))
    thresholds = Thresholds(config.bkg_threshold, config.high_threshold, config.low_threshold)
    postprocess = Postprocessor(inference, thresholds, classes)

    def see() -> MultiScale:
        return multi_scale_inference(network, image / 255 - 0.5, shown, inference.scales)

    seen = see()
    highest = seen.logits.max(dim=1)
    labels = dict.fromkeys(("segmentation", "crf"), highest.indices.byte())
    pairs = {kind: postprocess.matrix.entries(label, truth) for kind, label in labels.items()}

    def count() -> object:
        sure = dict.fromkeys(labels, confidence_of(seen.logits, highest.values))
        counts = postprocess.count_errors(labels, pairs, sure, truth)
        return [sparse(of[0]) for measures in counts.values() for of in measures.values()]

    work = {"network": see, "postprocessing": lambda: postprocess(seen, image, truth), "errors": count}
    taken = {name: least(of, options.repeats) for name, of in work.items()}
    share = taken["errors"] / (taken["network"] + taken["postprocessing"] - taken["errors"])
    result = {f"{name}_ms": round(1000 * of, 2) for name, of in taken.items()} | {"share": round(share, 4)}
    print(json.dumps(result | machine()))


def least(work: Callable[[], object], repeats: int) -> float:
    """Seconds of CPU that a call takes when least disturbed."""
    times = []
    for _ in range(repeats + 1):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times[1:])


if __name__ == "__main__":
    main()
