"""Scores of a network's CAMs and segmentation: streamed over the images, sharded over ranks, summed exactly."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fsr import distributed
from fsr.cam import multi_scale_cams, named, own_classes, strongest_class
from fsr.config import TrainConfig
from fsr.data.loaders import batches_of_one_size, evaluation_images
from fsr.data.source import Source
from fsr.heartbeat import HEARTBEAT
from fsr.metrics import CamScores, ConfusionMatrix, class_f1
from fsr.models.encoder import Features
from fsr.models.network import Network
from fsr.progress import with_progress
from fsr.quality import best_threshold, cam_quality, label_quality, measured
from fsr.resize import resize
from fsr.score_names import score_name

# Images of one size are evaluated together; what fits training fits this many times the batch without gradients.
BATCHES = 4


class Evaluation(NamedTuple):
    """What an evaluation found."""

    scores: dict[str, float | None]
    """Fractions, named by fsr.score_names; None where there is no ground truth to measure them by."""
    quality: dict[str, dict[str, Any]]
    """By network: segmentation, CAM and aux CAM class by class, and the CAMs' mIoU by threshold (fsr.quality)."""


class Scores:
    """The counts of one network: segmentation, top and aux CAM, F1 of the classes."""

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.segmentation = ConfusionMatrix(config.num_classes)
        self.cam = CamScores(config.num_classes, config.bkg_threshold)
        self.aux_cam = CamScores(config.num_classes, config.bkg_threshold)
        self.f1 = torch.zeros(2, dtype=torch.float64)  # sum, images

    @torch.no_grad()
    def add(self, network: Network, images: Tensor, ground_truth: Tensor, labels: Tensor) -> None:
        """Count a network's predictions for images [B, 3, H, W], ground truth [B, H, W] and labels [B, K]."""
        classes, present = own_classes(labels)  # the others cannot win, and COCO has 80 of them
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            seen: Features = network.encoder(images)
            features = seen.top, seen.aux
            cams = multi_scale_cams(network, images, self.config.cam_scales, seen=features, classes=classes)
            logits = network.decoder(seen.top)
            top_logits, _ = network.classify(seen)
        logits = resize(logits.float(), (ground_truth.shape[-2], ground_truth.shape[-1]))
        self.segmentation.add(logits.max(dim=1).indices, ground_truth)
        for counts, cam in zip((self.cam, self.aux_cam), cams, strict=True):
            value, place = strongest_class(cam, present)
            counts.add(value, named(place, classes), ground_truth)
        f1 = class_f1(top_logits > 0, labels > 0).cpu()
        self.f1 += torch.tensor([f1.sum(), len(f1)], dtype=torch.float64)

    def reduce(self, device: torch.device) -> None:
        """Add up the counts of all ranks, exactly."""
        for counts in (self.segmentation, self.cam, self.aux_cam):
            counts.reduce(device)
        self.f1 = distributed.total(self.f1.to(device)).cpu()

    def scores(self) -> dict[str, float | None]:
        """The scores over all images, as fractions; None for what cannot be measured, as all truth is ignored."""
        f1_sum, images = self.f1.tolist()
        segmentation = label_quality(self.segmentation)
        scores = {"seg_miou": segmentation["miou"], "seg_pixel_accuracy": segmentation["pixel_accuracy"]}
        for name, cam in (("cam", self.cam), ("aux_cam", self.aux_cam)):
            curve = measured(cam.curve())
            best = best_threshold(curve)
            scores |= {
                f"{name}_miou": curve[self.config.bkg_threshold],
                f"{name}_best_miou": None if best is None else curve[best],
                f"{name}_best_threshold": best,
            }
        return scores | {"class_f1": f1_sum / images}

    def quality(self) -> dict[str, Any]:
        """The same class by class, and the CAMs over all thresholds."""
        return {
            "segmentation": label_quality(self.segmentation),
            "cam": cam_quality(self.cam),
            "aux_cam": cam_quality(self.aux_cam),
        }


def evaluate(networks: dict[str, Network], config: TrainConfig, source: Source, device: torch.device) -> Evaluation:
    """Scores of the networks, named student and teacher, on the validation list.

    Every image is counted once, whatever the number of ranks. Raises UserError, on every rank, if an image or a mask
    cannot be read.
    """
    counts = {name: Scores(config) for name in networks}
    modes = {name: network.training for name, network in networks.items()}
    rank, ranks = distributed.rank(), distributed.world_size()
    images = evaluation_images(config, source, config.val_set, rank, ranks)
    if rank == 0:
        images = with_progress(images, len(source.items(config.val_set)[::ranks]), "evaluating")
    HEARTBEAT.beat("evaluating the first images", slow=True)
    with distributed.shared_errors():
        for batch in batches_of_one_size(images, BATCHES * config.batch_size):
            _, *tensors = zip(*batch, strict=True)
            views, ground_truth, labels = (torch.stack(tensor).to(device) for tensor in tensors)
            for name, network in networks.items():
                counts[name].add(network.eval(), views, ground_truth, labels)
                HEARTBEAT.beat("evaluating")
    scores: dict[str, float | None] = {}
    for name, network in networks.items():
        network.train(modes[name])
        counts[name].reduce(device)
        scores |= {score_name(score, name): value for score, value in counts[name].scores().items()}
    return Evaluation(scores, {name: counts[name].quality() for name in networks})
