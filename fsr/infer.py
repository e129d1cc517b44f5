"""From a checkpoint to the numbers and files of a paper: `python -m fsr.infer voc --checkpoint PATH --data_folder DIR`.

Images pass in a stream, a few at a time, from the network through the CRF to their files; nothing large is held, or put
on disk between.
"""

import dataclasses
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from threading import Lock
from typing import Any, Literal

import numpy as np
import torch
from rich.console import Console

from fsr import distributed
from fsr.bounded_map import bounded_map
from fsr.checkpoint import load_network
from fsr.config import PRESETS
from fsr.data.check import check_files
from fsr.data.lists import Item
from fsr.data.loaders import EvaluationImage, batches_of_one_size, labelled_images
from fsr.data.source import Source, open_source
from fsr.data.transforms import denormalise
from fsr.errors import UserError, reports_user_errors
from fsr.files import atomic_file, write_atomically, write_json
from fsr.inference.config import InferConfig, parse
from fsr.inference.gallery import write_gallery
from fsr.inference.journal import Journal, Results, fingerprint
from fsr.inference.multi_scale import multi_scale_inference
from fsr.inference.postprocess import Answer, Finished, Finisher
from fsr.inference.totals import Totals, as_csv, as_table
from fsr.inference.voc_archive import write_archive
from fsr.models.network import Network
from fsr.progress import with_progress

Outcome = Literal["finished", "stopped", "shard done"]
LOGITS_IN_A_FILE = 64  # images


def infer(config: InferConfig, stop_requested: Callable[[], bool] = lambda: False) -> Outcome:
    """Answer for the images of this shard that have no answer yet; whoever finishes the last one writes the scores.

    `stop_requested` is asked after each batch. Raises UserError for what the user must mend.
    """
    source, results = open_images(config), Results(config.results_folder)
    settings = identity(config)
    results.check(settings)
    items = source.items(config.infer_set)
    missing, untouched = what_is_left(items, results, config)
    if not missing and untouched:
        return "shard done"
    network, config = load(config, len(source.class_names))
    if missing and not config.skip_bad:
        check_files(source, config.infer_set, missing, with_masks=source.has_ground_truth(config.infer_set))
    results.start(settings)
    if missing and not answer_all(config, network, source, results, missing, stop_requested):
        return "stopped"
    _, untouched = what_is_left(items, results, config)
    if untouched:
        return "shard done"
    summarise(config, source, results, items, settings)
    return "finished"


def open_images(config: InferConfig) -> Source:
    """The data set. Raises UserError if it is not there."""
    preset = PRESETS[config.dataset](config.data_folder)
    classes = config.num_classes or preset.num_classes
    return open_source(dataclasses.replace(preset, list_folder=config.list_folder, num_classes=classes))


def identity(config: InferConfig) -> dict[str, Any]:
    """What the results depend on; results of another identity are not continued."""
    here = ("data_folder", "list_folder", "output_folder", "shards", "shard", "batch_size", "workers", "threads")
    later = ("report", "report_images", "skip_bad")
    chosen = {name: value for name, value in config.to_json().items() if name not in (*here, *later, "checkpoint")}
    return chosen | {"checkpoint_sha256": fingerprint(config.checkpoint)}


def load(config: InferConfig, num_classes: int) -> tuple[Network, InferConfig]:
    """The network, and our configuration with the thresholds that it was trained with, where none were given.

    Raises UserError if the checkpoint is for another number of classes than the data set has.
    """
    network, trained = load_network(config.checkpoint, config.weights, config.dataset, config.heads)
    if trained.num_classes != num_classes:
        raise UserError(
            f"checkpoint {config.checkpoint} has {trained.num_classes} classes, background included, "
            f"but {config.dataset} wants {num_classes} (--num_classes)"
        )
    thresholds = ("bkg_threshold", "high_threshold", "low_threshold")
    unset = {name: getattr(trained, name) for name in thresholds if getattr(config, name) is None}
    config = dataclasses.replace(config, **unset)
    if config.low_threshold > config.high_threshold:
        high = config.high_threshold
        raise UserError(f"low_threshold must be at most high_threshold {high}, got {config.low_threshold}")
    return network, config


def what_is_left(items: list[Item], results: Results, config: InferConfig) -> tuple[list[Item], bool]:
    """The images of this shard that have no answer, skipped ones among them: perhaps their files were mended.

    And whether any shard has images that nobody came to yet.
    """
    done = {record["name"]: "skipped" not in record for record in results.records()}
    missing = [item for item in items[config.shard :: config.shards] if not done.get(item.name)]
    return missing, any(item.name not in done for item in items)


def answer_all(
    config: InferConfig,
    network: Network,
    source: Source,
    results: Results,
    items: list[Item],
    stop_requested: Callable[[], bool],
) -> bool:
    """Answer for these images, and write down each when all its files are there; False if a stop came before that."""
    journal = Journal(results, config.shard, config.shards)
    images = labelled_images(source, config.infer_set, items, config.workers)
    images = with_progress(images, len(items), f"images of {config.infer_set}")
    batches = batches_of_one_size(readable(images, items, journal, config), config.batch_size)
    answer = Answerer(config, network, source, results)
    held: list[Finished] = []  # done but for their logits, which go to disk together
    stopped = False
    try:
        for finished in bounded_map(answer, batches, config.threads or torch.get_num_threads()):
            held += finished
            stopped = stop_requested()
            if stopped or not config.save_logits or len(held) >= LOGITS_IN_A_FILE:
                write_down(held, results, journal)
            if stopped:
                break
        write_down(held, results, journal)
    except OSError as error:
        raise UserError(
            f"results in {results.folder} cannot be written: {error.strerror or error}; "
            "when that is mended, the same command resumes with the missing images"
        ) from error
    finally:
        journal.close()
    return not stopped


def readable(
    images: Iterable[EvaluationImage | UserError], items: list[Item], journal: Journal, config: InferConfig
) -> Iterator[EvaluationImage]:
    """The images that can be read; the others are written down as skipped, or raise their UserError."""
    for item, image in zip(items, images, strict=True):
        if not isinstance(image, UserError):
            yield image
        elif config.skip_bad:
            print(f"skipped: {image}", file=sys.stderr)
            journal.append({"name": item.name, "skipped": str(image)})
        else:
            raise image


class Answerer:
    """Takes a batch from the network to its files, in one of many threads.

    Without a GPU each thread runs the network on a core of its own. A GPU serves one thread at a time, while the others
    are busy with their CRFs and files.
    """

    def __init__(self, config: InferConfig, network: Network, source: Source, results: Results) -> None:
        self.config = config
        self.device = distributed.own_device()
        self.network = network.to(self.device)
        self.has_ground_truth = source.has_ground_truth(config.infer_set)
        self.finish = Finisher(config, source.class_names, results)
        self.turn = Lock() if self.device.type == "cuda" else nullcontext()

    def __call__(self, batch: list[EvaluationImage]) -> list[Finished]:
        """What is left to be written down of each image."""
        return [self.finish(answer) for answer in self.ask(batch)]

    def ask(self, batch: list[EvaluationImage]) -> Iterator[Answer]:
        """The network's answers for images of one size, on the CPU."""
        names, views, ground_truths, labels = zip(*batch, strict=True)
        views = torch.stack(views)
        labels = torch.stack(labels).to(self.device) if self.has_ground_truth else None
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")
        with self.turn, autocast:
            seen = multi_scale_inference(self.network, views.to(self.device), labels, self.config.scales)
            logits = seen.logits.cpu()
        pictures = denormalise(views).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
        for i, name in enumerate(names):
            yield Answer(
                name,
                pictures[i],
                ground_truths[i] if self.has_ground_truth else None,
                logits[i],
                *(part[i].cpu() for part in (seen.classes, seen.cams, seen.aux_cams)),
                [grid[i].half().cpu().numpy() for grid in seen.grids] if self.config.save_logits else [],
            )


def write_down(held: list[Finished], results: Results, journal: Journal) -> None:
    """Put the logits of these images into one file, if they are kept, then the images into the journal."""
    arrays = {f"{record['name']}/{i}": grid for record, logits in held for i, grid in enumerate(logits)}
    if arrays:
        with atomic_file(results.logits_file(held[0][0]["name"])) as file:
            np.savez(file, **arrays)
    for record, _ in held:
        journal.append(record)
    held.clear()


def summarise(
    config: InferConfig, source: Source, results: Results, items: list[Item], settings: dict[str, Any]
) -> None:
    """Write scores, tables, the report and the server's archive from the records of all images, and show them."""
    results.remove_unfinished()
    names = {item.name for item in items}
    totals = Totals(len(source.class_names), config.bkg_threshold)
    totals.add(record for record in results.records() if record["name"] in names)
    scores, quality = totals.scores(), totals.cam_quality()
    facts = {
        "settings": settings | {"checkpoint": config.checkpoint, "bkg_threshold": config.bkg_threshold},
        "images": totals.images,
        "skipped": totals.skipped,
        "class_names": source.class_names,
    }
    write_json(results.scores_file, facts | {"scores": scores})
    console = Console(width=None if sys.stdout.isatty() else 140)
    if scores:
        write_json(results.cam_quality_file, facts | quality)
        write_atomically(results.table_file, as_csv(scores, source.class_names).encode())
        console.print(as_table(scores, source.class_names))
    if config.report:
        write_gallery(config, results, totals, source.class_names)
    if config.dataset != "coco" and not source.has_ground_truth(config.infer_set):
        pack_for_server(config, results, totals, names)
    if totals.skipped:
        print(f"{len(totals.skipped)} of {totals.images} images could not be read and are in no score:")
        for reason in totals.skipped.values():
            print(f"  {reason}")
    print(f"{totals.images} images; results in {results.folder}")


def pack_for_server(config: InferConfig, results: Results, totals: Totals, names: set[str]) -> None:
    """The archive for VOC's evaluation server; none if images were skipped, which the server would not take."""
    if totals.skipped:
        print(f"no archive for the server, which wants all {len(names)} images")
        return
    kind = "crf" if config.crf else "segmentation"
    write_archive(results.archive_file, {name: results.label_file(kind, name) for name in sorted(names)})
    print(f"archive for VOC's evaluation server, read back: {results.archive_file}")


def of_this_rank(config: InferConfig) -> InferConfig:
    """Under torchrun each rank takes its part of the shard; ranks need not talk to each other."""
    rank, ranks = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    return dataclasses.replace(config, shards=config.shards * ranks, shard=config.shard + config.shards * rank)


@reports_user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m fsr.infer`: SIGINT and SIGTERM stop it after the current batch; the same command resumes."""
    config = of_this_rank(parse("python -m fsr.infer", sys.argv[1:] if arguments is None else arguments))
    received: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: received.append(number))
    outcome = infer(config, lambda: bool(received))
    if outcome == "shard done":
        print(f"shard {config.shard} of {config.shards} is done; whoever finishes the last one writes the scores")
    if outcome == "stopped":
        print("stopped; the same command resumes with the missing images", file=sys.stderr)
        sys.exit(128 + received[0])


if __name__ == "__main__":
    main()
