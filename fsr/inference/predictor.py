"""Takes batches of images from the network to their files, in several threads."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from threading import Lock

import torch

from fsr import distributed
from fsr.data.loaders import EvaluationImage
from fsr.data.source import Source
from fsr.data.transforms import denormalise
from fsr.inference.config import InferConfig, Thresholds
from fsr.inference.journal import Results
from fsr.inference.multi_scale import multi_scale_inference
from fsr.inference.postprocess import Answer, Finished, Finisher
from fsr.models.network import Network


class Predictor:
    """Predicts a batch and writes its files; called by many threads.

    Without a GPU each thread runs the network on its own core. A GPU serves one thread at a time, while the others run
    their CRFs and write their files.
    """

    def __init__(
        self, config: InferConfig, thresholds: Thresholds, network: Network, source: Source, results: Results
    ) -> None:
        self.config = config
        self.device = distributed.own_device()
        self.network = network.to(self.device)
        self.has_ground_truth = source.has_ground_truth(config.infer_set)
        self.finish = Finisher(config, thresholds, source.class_names, results)
        self.turn: AbstractContextManager[object] = Lock() if self.device.type == "cuda" else nullcontext()

    def __call__(self, batch: list[EvaluationImage]) -> list[Finished]:
        """Write the files of a batch; returns what remains to be written of each image."""
        return [self.finish(answer) for answer in self.predict(batch)]

    def predict(self, batch: list[EvaluationImage]) -> Iterator[Answer]:
        """The network's predictions for images of one size, on the CPU."""
        names, image_views, ground_truths, image_labels = zip(*batch, strict=True)
        views = torch.stack(image_views)
        labels = torch.stack(image_labels).to(self.device) if self.has_ground_truth else None
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16")
        with self.turn, autocast:
            seen = multi_scale_inference(self.network, views.to(self.device), labels, self.config.scales)
            logits = seen.logits.cpu()
        pictures = denormalise(views).round().byte()
        for i, name in enumerate(names):
            yield Answer(
                name,
                pictures[i],
                ground_truths[i] if self.has_ground_truth else None,
                logits[i],
                seen.classes[i].cpu(),
                seen.cams[i].cpu(),
                seen.aux_cams[i].cpu(),
                [grid[i].half().cpu().numpy() for grid in seen.grids] if self.config.save_logits else [],
            )
