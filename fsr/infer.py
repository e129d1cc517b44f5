"""From a checkpoint to the numbers and files of a paper: `fsr infer voc --checkpoint PATH --data_folder DIR`.

Or to label maps of anybody's pictures: `fsr infer images FOLDER --checkpoint PATH --out DIR`.

Images pass in a stream, a few at a time, from the network through the CRF to their files. Nothing large is held in
memory, or written to disk in between.
"""

if __name__ == "__main__":
    from fsr import beginning

    beginning.begin("infer", torch=True)
    from fsr.command import help_first
    from fsr.inference.config import parse

    help_first(parse)

import dataclasses
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, partial
from typing import Any, Literal, TypeAlias

import numpy as np
import torch

from fsr.bounded_map import bounded_map
from fsr.checkpoint import load_trained
from fsr.data.check import check_files
from fsr.data.lists import Item
from fsr.data.loaders import EvaluationImage, batches_of_one_size, labelled_images
from fsr.data.names import shown
from fsr.data.plain_pictures import PlainPictures
from fsr.data.source import class_names_of
from fsr.data.transforms import levels, levels_within
from fsr.distributed import own_number
from fsr.errors import LoaderError, UserError, reports_user_errors
from fsr.files import atomic_file
from fsr.heartbeat import HEARTBEAT
from fsr.inference.answered import check_comparable
from fsr.inference.config import InferConfig, Thresholds, parse
from fsr.inference.finisher import Finished
from fsr.inference.images import open_images
from fsr.inference.journal import DoneImages, Journal, Results, fingerprint
from fsr.inference.predictor import Predictor
from fsr.inference.summary import summarise
from fsr.models.network import Network
from fsr.progress import with_progress
from fsr.released import ANY
from fsr.stop_signals import received_signals
from fsr.writable import check_folder

Outcome: TypeAlias = Literal["finished", "stopped", "shard done"]
LOGITS_IN_A_FILE = 64  # images


def infer(config: InferConfig, stop_requested: Callable[[], bool] = lambda: False) -> Outcome:
    """Answer the shard `config.shard`, see `Inference.answer_shard`."""
    return Inference(config).answer_shard(config.shard, stop_requested)


class Inference:
    """An inference, opened by one process for any number of its shards.

    The data set, its list and the checkpoint's hash are read once, and so is the network, when the first shard needs
    it. Each journal is read once from its start, then only what was appended. Other processes may answer other shards
    meanwhile. Raises UserError for what the user must mend.
    """

    def __init__(self, config: InferConfig) -> None:
        self.config = config
        self.source = open_images(config)
        self.results = Results(config.results_folder)
        self.settings = config.identity(fingerprint(config.checkpoint))
        if config.of_pictures:  # their names are no more than paths
            self.settings |= {"data_folder": str(self.source.root), "most_pixels": config.seen_pixels}
        self.results.check(self.settings)
        self.items = self.source.items(config.infer_set)
        left_out = self.source.left_out(config.infer_set)
        if left_out is not None:
            print(left_out)
        check_folder(self.results.folder, "--output_folder")
        if config.compare:
            check_comparable(config.compare, self.results, self.settings, {item.name for item in self.items})
        self._done = DoneImages(self.results)
        self._summarised = False

    def answer_shard(self, shard: int, stop_requested: Callable[[], bool] = lambda: False) -> Outcome:
        """Answer for the images of a shard that have no answer yet; whoever finishes the last shard writes the scores.

        Images that were skipped count as unanswered: their files may have been mended. `stop_requested` is asked after
        each batch. Raises UserError for what the user must mend.
        """
        HEARTBEAT.start("starting")
        self._done.update()
        images = self.items[shard :: self.config.shards]
        missing = [item for item in images if item.name not in self._done.answered]
        if missing:
            self._summarised = False
            if not self._answer(missing, shard, stop_requested):
                return "stopped"
            self._done.update()
        done = self._done.answered | self._done.skipped
        if any(item.name not in done for item in self.items):
            return "shard done"
        if not self._summarised:
            HEARTBEAT.beat("summarising", slow=True)
            _, thresholds = self.network
            summarise(self.config, thresholds.background, self.source, self.results, self.items, self.settings)
            self._summarised = True
        return "finished"

    @cached_property
    def network(self) -> tuple[Network, Thresholds]:
        """The network, and the thresholds of its CAMs. Plain pictures take the names of the classes from it.

        Raises UserError if the checkpoint is for other classes than the data set has.
        """
        config = self.config
        preset = ANY if config.of_pictures else config.dataset
        network, trained, class_names = load_trained(config.checkpoint, config.weights, preset, config.told())
        if isinstance(self.source, PlainPictures):
            self.source.class_names = tuple(class_names) or class_names_of(trained)
        wanted = len(self.source.class_names)
        if trained.num_classes != wanted:
            other = f"names {wanted}" if config.of_pictures else f"{config.dataset} has {wanted} (--num_classes)"
            raise UserError(
                f"checkpoint {config.checkpoint} has {trained.num_classes} classes, background included, but {other}"
            )
        for number, (ours, own) in enumerate(zip(class_names, self.source.class_names, strict=False)):
            if ours != own:
                raise UserError(
                    f"checkpoint {config.checkpoint} was trained with {shown(ours)} as class {number}, "
                    f"but in {self.source.root} class {number} is {shown(own)}; its scores would be of other classes"
                )
        return network, config.thresholds(trained)

    def _answer(self, missing: list[Item], shard: int, stop_requested: Callable[[], bool]) -> bool:
        """Write the files of these images, then their records; False if a stop was requested before the last one."""
        config = self.config
        network, thresholds = self.network
        if not config.skip_bad:
            with_masks = self.source.has_ground_truth(config.infer_set)
            check_files(self.source, config.infer_set, missing, with_masks=with_masks)
        predictor = Predictor(config, thresholds, network, self.source, self.results)
        self.results.start(self.settings)  # from now on the folder holds results of these settings
        journal = Journal(self.results, shard, config.shards)
        as_tensor = levels if config.seen_pixels is None else partial(levels_within, config.seen_pixels)
        loaded = labelled_images(self.source, config.infer_set, missing, config.workers, as_tensor)
        what = "pictures" if config.of_pictures else f"images of {config.infer_set}"
        loaded = with_progress(loaded, len(missing), what)
        images = readable(loaded, missing, journal, skip_bad=config.skip_bad)
        batches = batches_of_one_size(images, config.batch_size)
        unwritten: list[Finished] = []  # done but for their logits, which go to disk together
        stopped = False
        try:
            try:
                for finished in bounded_map(predictor, batches, config.threads or torch.get_num_threads()):
                    unwritten += finished
                    stopped = stop_requested()
                    if stopped or not config.save_logits or len(unwritten) >= LOGITS_IN_A_FILE:
                        write_down(unwritten, self.results, journal)
                    if stopped:
                        break
            except LoaderError:
                stopped = stop_requested()
                if not stopped:
                    raise
            write_down(unwritten, self.results, journal)
        except OSError as error:
            raise UserError(
                f"results in {self.results.folder} cannot be written: {error.strerror or error}; "
                "when that is mended, the same command resumes with the missing images"
            ) from error
        finally:
            journal.close()
        return not stopped


def readable(
    images: Iterable[EvaluationImage | UserError], items: list[Item], journal: Journal, *, skip_bad: bool
) -> Iterator[EvaluationImage]:
    """The images that can be read. For another one, records that it was skipped, or raises its UserError."""
    for item, image in zip(items, images, strict=True):
        if not isinstance(image, UserError):
            yield image
        elif skip_bad:
            print(f"skipped: {image}", file=sys.stderr)
            journal.append({"name": item.name, "skipped": str(image)})
        else:
            raise image


def write_down(finished: list[Finished], results: Results, journal: Journal) -> None:
    """Write the logits of these images to one file, if they are saved, then the images' records; empties the list."""
    arrays: dict[str, Any] = {
        f"{record['name']}/{i}": grid for record, logits in finished for i, grid in enumerate(logits)
    }
    if arrays:
        with atomic_file(results.logits_file(finished[0][0]["name"])) as file:
            np.savez(file, **arrays)
    for record, _ in finished:
        journal.append(record)
    finished.clear()


def of_this_rank(config: InferConfig) -> InferConfig:
    """Under torchrun each rank takes its part of the shard. Ranks need no communication."""
    rank, ranks = own_number()
    return dataclasses.replace(config, shards=config.shards * ranks, shard=config.shard + config.shards * rank)


@reports_user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """`fsr infer`: SIGINT, SIGTERM and SIGHUP stop it after the current batch; the same command resumes."""
    config = of_this_rank(parse(sys.argv[1:] if arguments is None else arguments))
    received = received_signals()
    outcome = infer(config, lambda: bool(received))
    if outcome == "shard done":
        print(f"shard {config.shard} of {config.shards} is done; whoever finishes the last one writes the scores")
    if outcome == "stopped":
        print("stopped; the same command resumes with the missing images", file=sys.stderr)
        sys.exit(128 + received[0])


if __name__ == "__main__":
    main()
