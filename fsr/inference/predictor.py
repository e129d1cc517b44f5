"""Takes batches of images from the network to their files, in several threads."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch
from torch import Tensor

from fsr import distributed
from fsr.arithmetic import use_arithmetic
from fsr.data.image_set import ImageSet
from fsr.data.loaders import EvaluationImage
from fsr.data.transforms import normalise_levels
from fsr.inference.config import InferConfig, Thresholds
from fsr.inference.finisher import Answer, Finished, Finisher
from fsr.inference.journal import Results
from fsr.inference.multi_scale import MultiScale, multi_scale_inference
from fsr.inference.postprocess import Postprocessor
from fsr.inference.transfer import download, uploaded
from fsr.models.network import Network


class Predictor:
    """Predicts a batch and writes its files; called by many threads.

    Without a GPU each thread runs the network on its own core. A GPU is given its work by one thread at a time, while
    the others wait for their answers and write their files.
    """

    def __init__(
        self, config: InferConfig, thresholds: Thresholds, network: Network, source: ImageSet, results: Results
    ) -> None:
        self.config = config
        use_arithmetic(config.precision, deterministic=False)
        self.device = distributed.own_device()
        self.place = self.device if config.postprocess == "device" else torch.device("cpu")
        self.network = network.to(self.device)
        self.has_ground_truth = source.has_ground_truth(config.infer_set)
        self.postprocess = Postprocessor(config, thresholds, len(source.class_names))
        self.finish = Finisher(config, source, results)
        self._lock = Lock()

    def __call__(self, batch: list[EvaluationImage]) -> list[Finished]:
        """Write the files of a batch; returns what remains to be written of each image."""
        return [self.finish(answer) for answer in self.answers(batch)]

    def answers(self, batch: list[EvaluationImage]) -> list[Answer]:
        """The answers for images of one size, on the CPU."""
        names, _, truths, _ = zip(*batch, strict=True)
        with self.turn():
            ground_truth = _stacked(truths, self.place) if self.has_ground_truth else None
            if self.place == self.device:
                arriving = download(self.postprocess(*self.see(batch), ground_truth))
            else:
                seen = download(self.see(batch))
        answers = arriving() if self.place == self.device else self.postprocess(*seen(), ground_truth)
        return [
            Answer.of(answers, i, name, truths[i] if self.has_ground_truth else None) for i, name in enumerate(names)
        ]

    @contextmanager
    def turn(self) -> Iterator[None]:
        """A thread's turn at a GPU, which has to be the current one of each thread; a CPU serves all at once."""
        if self.device.type == "cpu":
            yield
        else:
            with self._lock, torch.cuda.device(self.device):
                yield

    def see(self, batch: list[EvaluationImage]) -> tuple[MultiScale, Tensor]:
        """The network's predictions for images of one size, and their 8-bit pictures [B, 3, H, W], on its device."""
        _, images, _, labels = zip(*batch, strict=True)
        pictures = _stacked(images, self.device)
        known = torch.stack(labels) if self.has_ground_truth else None
        views = normalise_levels(pictures.float())
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            seen = multi_scale_inference(self.network, views, known, self.config.scales)
        return seen, pictures


def _stacked(tensors: tuple[Tensor, ...], device: torch.device) -> Tensor:
    """The loader's tensors of a batch as one on the device."""
    return torch.stack([uploaded(tensor, device) for tensor in tensors])
