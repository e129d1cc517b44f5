"""Inference end to end against the reference implementation of the tests: JPEG files in, label maps and scores out.

    python benchmarks/infer.py

ViT-S/16, 224 px, 21 classes, three scales with horizontal flip. The reference is tests/reference_inference.py: one
image at a time in the order of the released code (the whole network twice a scale, with the projector), everything in
memory, then pydensecrf in joblib's processes. `single_pass` is the reference without that waste. All take turns on the
same images; medians of the turns, with the network in memory for all. The last line is JSON; `speedup` is with CRF
against the reference with pydensecrf. `stages_ms` is ours alone, a stage after the other.
"""

import contextlib
import dataclasses
import io
import json
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from machine import machine, medians, seconds
from pictures import picture, probabilities
from PIL import Image

from fsr.config import TrainConfig, voc
from fsr.data.lists import Item, write_list
from fsr.data.loaders import EvaluationImage, batches_of_one_size, labelled_images
from fsr.data.palette import palette_png
from fsr.data.transforms import levels
from fsr.data.voc import VocSource
from fsr.distributed import own_device
from fsr.files import write_atomically
from fsr.infer import Inference
from fsr.inference.config import InferConfig
from fsr.inference.predictor import Predictor
from fsr.metrics import ConfusionMatrix
from fsr.models.network import Network

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import reference_inference as reference

SCALES = InferConfig.scales


@dataclass(frozen=True)
class Options:
    """Time the inference."""

    images: int = 24
    """Images a turn."""
    repeats: int = 3
    """Turns."""
    size: int = 224
    """Side of the images in pixels."""
    backbone: str = "vit_small_patch16_224"
    """timm's ViT."""
    precision: str = "fp32"
    """fp32, tf32 or bf16 for ours; the reference runs in fp32."""
    jobs: int = 2
    """Processes of pydensecrf, and threads of ours."""
    batch_size: int = 4
    """Images that our network sees at a time."""


def main() -> None:
    """Measure and print."""
    options = tyro.cli(Options)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder, options)
        config = dataclasses.replace(
            voc(folder), backbone=options.backbone, pretrained="none", crop_size=options.size, block_size=16
        )
        torch.manual_seed(0)
        network = Network(config).eval().to(own_device())  # the reference has what ours loads for itself
        torch.save({"student": network.state_dict(), "config": config.to_json()}, folder / "best.pt")
        turns: dict[str, list[float]] = defaultdict(list)
        for turn in range(-1, options.repeats):
            items = VocSource(folder).items("val")[: 2 if turn < 0 else None]  # a short one first, to warm up
            write_list(folder / "val.txt", items)
            times = one_turn(network, config, folder, options)
            for name, taken in times.items() if turn >= 0 else ():
                turns[name].append(taken)
            print(f"turn {turn}:", {name: round(taken, 2) for name, taken in times.items()}, flush=True)
        parts = stages(folder, options)
    times = medians(turns)
    result = {
        "speedup": round(times["reference"] / times["ours"], 2),
        "speedup_without_crf": round(times["reference_without_crf"] / times["ours_without_crf"], 2),
        "speedup_over_single_pass": round(times["single_pass"] / times["ours"], 2),
        "images_per_s": {name: round(options.images / taken, 3) for name, taken in times.items()},
        "stages_ms": parts,
        "precision": options.precision,
    }
    print(json.dumps(result | machine()))


def one_turn(network: Network, config: TrainConfig, folder: Path, options: Options) -> dict[str, float]:
    """Seconds of each way through the images."""
    times = {
        "ours": ours(folder, options, crf=True),
        "ours_without_crf": ours(folder, options, crf=False),
    }
    network_s, crf_s, rest_s = run_reference(network, config, folder, options, released_order=True)
    times |= {"reference": network_s + crf_s + rest_s, "reference_without_crf": network_s + rest_s}
    times["single_pass"] = sum(run_reference(network, config, folder, options, released_order=False))
    return times


def write_data(folder: Path, options: Options) -> None:
    """A set in VOC's layout."""
    root = folder / "VOCdevkit/VOC2012"
    (root / "JPEGImages").mkdir(parents=True)
    source, items = VocSource(folder), []
    for seed in range(options.images):
        name = f"{seed:06d}"
        Image.fromarray(picture(options.size, options.size, seed)).save(source.image_file(name, "val"), quality=95)
        ground_truth = probabilities(21, options.size, options.size, seed).argmax(0).astype(np.uint8)
        write_atomically(source.mask_file(name, "val"), palette_png(ground_truth))
        classes = [int(class_id) for class_id in np.bincount(ground_truth.ravel()).argsort()[::-1] if class_id > 0][:2]
        items.append(Item(name, tuple(sorted(classes))))
    write_list(source.list_folder / "val.txt", items)


def inference(folder: Path, out: str, options: Options, crf: bool) -> Inference:
    """Ours, with its checkpoint loaded."""
    config = InferConfig(
        dataset="voc",
        checkpoint=folder / "best.pt",
        data_folder=folder,
        list_folder=folder,
        output_folder=Path(out),
        crf=crf,
        precision=options.precision,
        threads=options.jobs,
        batch_size=options.batch_size,
    )
    opened = Inference(config)
    _ = opened.network  # loads it
    return opened


def ours(folder: Path, options: Options, crf: bool) -> float:
    """Seconds of the command once its checkpoint is loaded."""
    with tempfile.TemporaryDirectory() as out, contextlib.redirect_stdout(io.StringIO()):
        opened = inference(folder, out, options, crf)
        return seconds(lambda: opened.answer_shard(0))


def stages(folder: Path, options: Options) -> dict[str, float]:
    """Milliseconds an image of each stage of ours, one after the other in this thread."""
    with tempfile.TemporaryDirectory() as out:
        opened = inference(folder, out, options, crf=True)
        network, thresholds = opened.network
        predictor = Predictor(opened.config, thresholds, network, opened.source, opened.results)
        images: list[EvaluationImage] = []
        taken = {
            "loading": seconds(lambda: images.extend(labelled_images(opened.source, "val", opened.items, 0, levels)))
        }
        batches = list(batches_of_one_size(images, options.batch_size))
        answers = predictor.answers(batches[0])[:0]  # to warm up
        taken["network"] = seconds(lambda: [predictor.see(batch) for batch in batches])
        both = seconds(lambda: answers.extend(answer for batch in batches for answer in predictor.answers(batch)))
        taken["postprocessing"] = both - taken["network"]
        taken["files"] = seconds(lambda: [predictor.finish(answer) for answer in answers])
    return {name: round(1000 * stage / len(images), 2) for name, stage in taken.items()}


def run_reference(
    network: Network, config: TrainConfig, folder: Path, options: Options, released_order: bool
) -> tuple[float, float, float]:
    """The same label maps and scores by the reference; seconds of the network, of the CRF and of the rest."""
    source = VocSource(folder, folder)
    items = source.items("val")
    files = [source.image_file(item.name, "val") for item in items]
    answers: list[reference.ReferenceAnswer] = []
    network_s = seconds(
        lambda: answers.extend(reference.reference_answer(network, f, SCALES, released_order) for f in files)
    )
    crf: list[np.ndarray] = []
    crf_s = seconds(lambda: crf.extend(reference.crf_labels(answers, options.jobs)))

    def write_and_score() -> None:
        labels = {"segmentation": [answer.logits.argmax(0).astype(np.uint8) for answer in answers], "crf": crf}
        for kind in ("cam", "aux_cam"):
            labels[kind] = [
                reference.cam_label(getattr(answer, kind), item.classes, config.bkg_threshold)
                for answer, item in zip(answers, items, strict=True)
            ]
        ground_truths = [source.ground_truth(item.name, "val", None) for item in items]
        with tempfile.TemporaryDirectory() as out:
            for kind, maps in labels.items():
                matrix = ConfusionMatrix(21)
                for item, label, ground_truth in zip(items, maps, ground_truths, strict=True):
                    (Path(out) / f"{kind}_{item.name}.png").write_bytes(palette_png(label))
                    matrix.add(torch.from_numpy(label), torch.from_numpy(ground_truth))
                matrix.miou()

    return network_s, crf_s, seconds(write_and_score)


if __name__ == "__main__":
    main()
