"""Batches of training views, and images with their ground truth for evaluation."""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import torch
from torch.utils.data import Dataset, default_collate

from fsr.config import TrainConfig
from fsr.data.device_views import DrawnView
from fsr.data.image_set import ImageSet
from fsr.data.images import IGNORED, read_image
from fsr.data.lists import Item
from fsr.data.loader_processes import load
from fsr.data.randomness import seeded
from fsr.data.shared_memory import check_for_elements_of, check_shared_memory
from fsr.data.source import Source
from fsr.data.transforms import View, global_view, local_view, normalise
from fsr.errors import UserError

EvaluationImage: TypeAlias = tuple[str, torch.Tensor, torch.Tensor, torch.Tensor]

# First words of the random keys, so that the order of the images and their views are drawn independently.
_ORDER, _VIEWS = 0, 1

# Batches' worth of images that may wait for others of their size.
_WAITING_BATCHES = 8


def train_loader(
    config: TrainConfig, source: Source, rank: int, world_size: int, first_step: int, last_step: int
) -> Iterator[dict[str, Any]]:
    """The batches of `rank` for the steps from `first_step` up to, not including, `last_step`.

    Each is a dict of all that a step needs, with B images of all micro-batches of the rank, in their order: `view1`,
    `view2` float32 [B, 3, S, S], `labels` float32 [B, K] (0 or 1) and `local_crops`, a list of float32
    [B, 3, S', S']. With `augment` on the device the two views are `Drawn`. A micro-batch depends only on config.seed,
    the step, its number in the step and its size, not on the ranks, the workers or the step that a run resumed from.
    Raises UserError if the list or an image cannot be read, or if the ranks cannot share the micro-batches equally.
    """
    items = source.items(config.train_set)
    check_shared_memory(config.workers, batch_bytes(config, world_size), "batches of this size")
    images = config.batch_size * config.micro_batches(world_size)
    batches = _Batches(config.seed, len(items), images, rank, world_size, first_step, last_step)
    views = TrainingViews(config, source, items)
    return _without_errors(load(views, config.workers, batch_sampler=batches, collate_fn=_stack))


def batch_bytes(config: TrainConfig, world_size: int) -> int:
    """Bytes of a rank's batch as the loader workers hand it over."""
    level = 1 if config.augment == "device" else torch.float32.itemsize
    views = 2 * 3 * config.crop_size**2 * level
    crops = config.local_crops * 3 * config.local_crop_size**2 * torch.float32.itemsize
    labels = (config.num_classes - 1) * torch.float32.itemsize
    return config.batch_size * config.micro_batches(world_size) * (views + crops + labels)


def evaluation_images(
    config: TrainConfig, source: Source, split: str, rank: int, world_size: int
) -> Iterator[EvaluationImage]:
    """Every `world_size`-th image of `split`, from number `rank` on, one at a time.

    Each is (name, normalised image float32 [3, H, W], ground truth uint8 [H, W], labels float32 [K]); without
    ground truth in the split it is 255 everywhere. Raises UserError if the list, an image or a mask cannot be read.
    """
    return _without_errors(labelled_images(source, split, source.items(split)[rank::world_size], config.workers))


def labelled_images(
    source: ImageSet, split: str, items: list[Item], workers: int, as_tensor: View = normalise
) -> Iterator[EvaluationImage | UserError]:
    """The images `items` of `split` in their order, as `evaluation_images` yields them, or a UserError in its place.

    `as_tensor` makes a tensor of the picture.
    """
    images = EvaluationImages(source, split, items, as_tensor)
    check_for_elements_of(images, workers)
    return load(images, workers, batch_size=None, collate_fn=_as_is)


def batches_of_one_size(samples: Iterable[EvaluationImage], batch_size: int) -> Iterator[list[EvaluationImage]]:
    """Batches of images of equal size. When too many images wait, the largest incomplete batch is yielded."""
    waiting: dict[torch.Size, list[EvaluationImage]] = {}
    for sample in samples:
        same_size = waiting.setdefault(sample[1].shape, [])
        same_size.append(sample)
        if len(same_size) == batch_size:
            yield waiting.pop(sample[1].shape)
        elif sum(map(len, waiting.values())) >= _WAITING_BATCHES * batch_size:
            yield waiting.pop(max(waiting, key=lambda size: len(waiting[size])))
    yield from waiting.values()


def multi_hot(item: Item, num_classes: int) -> torch.Tensor:
    """Labels of an image, float32 [K]: 1 at class - 1 for each of its classes; `num_classes` counts the background."""
    labels = torch.zeros(num_classes - 1)
    labels[[class_id - 1 for class_id in item.classes]] = 1
    return labels


class TrainingViews(Dataset[dict[str, Any] | UserError]):
    """Sample (index, n): the views of image `index`, drawn for the n-th sample of the run."""

    def __init__(self, config: TrainConfig, source: Source, items: list[Item]) -> None:
        self.config, self.source, self.items = config, source, items
        self.global_view = DrawnView(config) if config.augment == "device" else global_view(config)
        self.local_view = local_view(config)

    def __getitem__(self, sample: tuple[int, int]) -> dict[str, Any] | UserError:
        """The sample, or the UserError of its file: torch would bury a raised error in a worker's traceback."""
        index, n = sample
        item = self.items[index]
        try:
            image = read_image(self.source.image_file(item.name, self.config.train_set))
        except UserError as error:
            return error
        with seeded(_VIEWS, self.config.seed, n):
            return {
                "view1": self.global_view(image),
                "view2": self.global_view(image),
                "labels": multi_hot(item, self.config.num_classes),
                "local_crops": [self.local_view(image) for _ in range(self.config.local_crops)],
            }


class EvaluationImages(Dataset[EvaluationImage | UserError]):
    """The images of a split at their own size, with their ground truth."""

    def __init__(self, source: ImageSet, split: str, items: list[Item], as_tensor: View) -> None:
        self.source, self.split, self.items, self.as_tensor = source, split, items, as_tensor

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> EvaluationImage | UserError:
        """The image, or the UserError of its files."""
        item = self.items[index]
        try:
            image = self.source.picture(item.name, self.split)
            ground_truth = self.source.ground_truth(item.name, self.split, image.size)
        except UserError as error:
            return error
        pixels = self.as_tensor(image)
        if ground_truth is None:
            ground_truth = np.full(pixels.shape[1:], IGNORED, np.uint8)
        labels = multi_hot(item, len(self.source.class_names))
        return item.name, pixels, torch.from_numpy(ground_truth), labels


class _Batches:
    """For each step, the (index, n) of one rank's samples; n counts the samples of the whole run over all ranks."""

    def __init__(
        self, seed: int, images: int, batch_size: int, rank: int, world_size: int, first_step: int, last_step: int
    ) -> None:
        self.seed, self.images, self.batch_size = seed, images, batch_size
        self.rank, self.world_size = rank, world_size
        self.steps = range(first_step, last_step)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in self.steps:
            first = (step * self.world_size + self.rank) * self.batch_size
            yield [self._sample(n) for n in range(first, first + self.batch_size)]

    def _sample(self, n: int) -> tuple[int, int]:
        epoch, place = divmod(n, self.images)
        return int(_order(self.seed, epoch, self.images)[place]), n


@lru_cache(maxsize=2)  # a batch may reach into the next epoch
def _order(seed: int, epoch: int, images: int) -> np.ndarray:
    return np.random.default_rng((_ORDER, seed, epoch)).permutation(images)


def _stack(samples: list[dict[str, Any] | UserError]) -> dict[str, Any] | UserError:
    for sample in samples:
        if isinstance(sample, UserError):
            return sample
    batch: dict[str, Any] = default_collate(samples)
    return batch


def _as_is(sample: Any) -> Any:
    return sample


def _without_errors(loader: Iterable[Any]) -> Iterator[Any]:
    for sample in loader:
        if isinstance(sample, UserError):
            raise sample
        yield sample
