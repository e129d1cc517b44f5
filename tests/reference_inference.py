"""The reference implementation of inference, in the released code's order, for tests and benchmarks.

One image at a time, everything in memory: for each scale the whole network for the segmentation and once more for the
CAMs, every token through the projector; the logits of all images are kept, then pydensecrf goes over them.
"""

from pathlib import Path
from typing import NamedTuple

import joblib
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from pydensecrf import densecrf

from fsr.models.network import Network

MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
INFERENCE = {"spatial": (1, 1), "bilateral": (4, 121, 5)}  # weight, standard deviations
PSEUDO_LABEL = {"spatial": (3, 3), "bilateral": (4, 36, 3)}


class ReferenceAnswer(NamedTuple):
    """What there is of one image, as NumPy arrays."""

    image: np.ndarray  # uint8 [H, W, 3]
    logits: np.ndarray  # [C, H, W]
    cam: np.ndarray  # [K, H, W]
    aux_cam: np.ndarray  # [K, H, W]


@torch.no_grad()
def reference_answer(
    network: Network, image_file: Path, scales: tuple[float, ...], released_order: bool = True
) -> ReferenceAnswer:
    """The network's answer for one image, on its device; without the released order one pass a scale, no projector."""
    picture = np.asarray(Image.open(image_file).convert("RGB"))
    image = (torch.from_numpy(picture.copy()).permute(2, 0, 1).float() / 255 - MEAN) / STD
    image = image.to(network.encoder.cls_token.device)
    height, width = picture.shape[:2]
    segmentation, top, aux = [], [], []
    for scale in scales:
        scaled = image[None]
        if scale != 1:
            size = (int(scale * height), int(scale * width))
            scaled = F.interpolate(scaled, size=size, mode="bilinear", align_corners=False)
        both = torch.cat([scaled, scaled.flip(-1)])
        seen = whole_pass(network, both) if released_order else network.encoder(both)
        segmentation.append(sum_with_flip(network.decoder(seen.top), height, width))
        if released_order:
            seen = whole_pass(network, both)
        top.append(sum_with_flip(F.relu(network.top_classifier(seen.top)), height, width))
        aux.append(sum_with_flip(F.relu(network.aux_classifier(seen.aux)), height, width))
    logits = torch.stack(segmentation).max(dim=0).values
    maps = (logits, normalised(sum(top)), normalised(sum(aux)))
    return ReferenceAnswer(picture, *(part.cpu().numpy() for part in maps))


def whole_pass(network: Network, images: torch.Tensor):
    """The encoder with its class token, and the projector on all tokens, whose output nobody reads."""
    seen = network.encoder(images)
    cls = network.encoder.class_token(seen.last)
    network.projector(torch.cat([cls[:, None], seen.top.flatten(2).transpose(1, 2)], dim=1))
    return seen


def sum_with_flip(maps: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """[2, C, h, w] of the image and its flip to [C, H, W]."""
    maps = F.interpolate(maps, size=(height, width), mode="bilinear", align_corners=False)
    return maps[0] + maps[1].flip(-1)


def normalised(cam: torch.Tensor) -> torch.Tensor:
    """[K, H, W] to [0, 1]."""
    cam = cam - cam.amin(dim=(1, 2), keepdim=True)
    return cam / (cam.amax(dim=(1, 2), keepdim=True) + 1e-5)


def crf(image: np.ndarray, probabilities: np.ndarray, settings: dict) -> np.ndarray:
    """pydensecrf's marginals [C, H, W]."""
    classes, height, width = probabilities.shape
    field = densecrf.DenseCRF2D(width, height, classes)
    field.setUnaryEnergy(np.ascontiguousarray(-np.log(probabilities.clip(1e-5, 1)).reshape(classes, -1)))
    weight, std = settings["spatial"]
    field.addPairwiseGaussian(sxy=std, compat=weight)
    weight, xy_std, rgb_std = settings["bilateral"]
    field.addPairwiseBilateral(sxy=xy_std, srgb=rgb_std, rgbim=np.array(image), compat=weight)
    return np.array(field.inference(10)).reshape(classes, height, width)


def softmax(scores: np.ndarray) -> np.ndarray:
    """Over the first dimension."""
    exponentials = np.exp(scores - scores.max(0))
    return exponentials / exponentials.sum(0)


def crf_labels(answers: list[ReferenceAnswer], jobs: int) -> list[np.ndarray]:
    """Labels [H, W] of all images after the CRF, in processes."""

    def one(answer: ReferenceAnswer) -> np.ndarray:
        return crf(answer.image, softmax(answer.logits), INFERENCE).argmax(0).astype(np.uint8)

    return joblib.Parallel(n_jobs=jobs)(joblib.delayed(one)(answer) for answer in answers)


def cam_label(cam: np.ndarray, classes: tuple[int, ...], threshold: float) -> np.ndarray:
    """Labels [H, W]: the strongest present class where it is above the threshold."""
    present = np.zeros(len(cam), np.float32)
    present[[class_id - 1 for class_id in classes]] = 1
    valid = cam * present[:, None, None]
    return np.where(valid.max(0) > threshold, valid.argmax(0) + 1, 0).astype(np.uint8)


def crf_pseudo_label(answer: ReferenceAnswer, classes: tuple[int, ...], high: float, low: float) -> np.ndarray:
    """Labels [H, W] by the two-threshold rule, 255 where it is ignored."""

    def against(background: float) -> np.ndarray:
        constant = np.full((1, *answer.image.shape[:2]), background, np.float32)
        scores = np.concatenate([constant, answer.cam[[class_id - 1 for class_id in classes]]])
        best = crf(answer.image, softmax(scores), PSEUDO_LABEL).argmax(0)
        return np.array([0, *classes], np.uint8)[best]

    sure, likely = against(high), against(low)
    return np.where(sure > 0, sure, np.where(likely > 0, 255, 0)).astype(np.uint8)


def reference_iou(predictions: list[np.ndarray], ground_truths: list[np.ndarray], num_classes: int) -> list[float]:
    """IoU of each class over all images, counted class by class; NaN where it occurs in neither map."""
    ious = []
    for class_id in range(num_classes):
        intersection = union = 0
        for prediction, ground_truth in zip(predictions, ground_truths, strict=True):
            counts = (ground_truth < num_classes) & (prediction < num_classes)
            is_true, is_predicted = (ground_truth == class_id) & counts, (prediction == class_id) & counts
            intersection += int((is_true & is_predicted).sum())
            union += int((is_true | is_predicted).sum())
        ious.append(intersection / union if union else float("nan"))
    return ious
