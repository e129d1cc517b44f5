"""Dense CRF (Krähenbühl & Koltun 2011) through pydensecrf, and pseudo labels from CAMs with it."""

from dataclasses import dataclass

import numpy as np
from pydensecrf import densecrf

from fsr.cam import IGNORED


@dataclass(frozen=True)
class CRFSettings:
    """Mean-field iterations; weight and standard deviations (pixels, 8-bit colour values) of the two Potts terms."""

    iterations: int
    spatial_weight: float
    spatial_std: float
    bilateral_weight: float
    bilateral_xy_std: float
    bilateral_rgb_std: float


INFERENCE = CRFSettings(
    10, spatial_weight=1, spatial_std=1, bilateral_weight=4, bilateral_xy_std=121, bilateral_rgb_std=5
)
PSEUDO_LABEL = CRFSettings(
    10, spatial_weight=3, spatial_std=3, bilateral_weight=4, bilateral_xy_std=36, bilateral_rgb_std=3
)


def dense_crf(image: np.ndarray, probabilities: np.ndarray, settings: CRFSettings = INFERENCE) -> np.ndarray:
    """Sharpen class probabilities along the image's edges (METHOD "Dense CRF").

    Args:
        image: uint8 [H, W, 3].
        probabilities: [C, H, W].
        settings: of the Potts terms.

    Returns:
        Marginals, float32 [C, H, W].
    """
    height, width = image.shape[:2]
    if image.dtype != np.uint8 or image.shape != (height, width, 3):
        raise ValueError(f"Expected an image uint8 [H, W, 3], got {image.dtype} {list(image.shape)}")
    if probabilities.ndim != 3 or probabilities.shape[1:] != (height, width):
        raise ValueError(f"Expected probabilities [C, {height}, {width}], got {list(probabilities.shape)}")
    classes = len(probabilities)
    crf = densecrf.DenseCRF2D(width, height, classes)
    energy = -np.log(np.clip(probabilities.astype(np.float32), 1e-5, 1))
    # pydensecrf refuses arrays that are not C-contiguous, and read-only ones (such as NumPy's view of a PIL image).
    crf.setUnaryEnergy(np.ascontiguousarray(energy.reshape(classes, -1)))
    crf.addPairwiseGaussian(sxy=settings.spatial_std, compat=settings.spatial_weight)
    crf.addPairwiseBilateral(
        sxy=settings.bilateral_xy_std,
        srgb=settings.bilateral_rgb_std,
        rgbim=np.array(image, order="C"),
        compat=settings.bilateral_weight,
    )
    return np.array(crf.inference(settings.iterations), dtype=np.float32).reshape(classes, height, width)


def crf_pseudo_label(
    image: np.ndarray,
    cams: np.ndarray,
    classes: np.ndarray,
    high: float,
    low: float,
    settings: CRFSettings = PSEUDO_LABEL,
) -> np.ndarray:
    """Pseudo label from the CAMs of the present classes, by two CRFs that differ in the background's score.

    Args:
        image: uint8 [H, W, 3].
        cams: [P, H, W] in [0, 1].
        classes: label of each CAM, [P], counted from 1.
        high: background score for what is surely foreground; that answer holds.
        low: background score for what is surely background; between the two a pixel is ignored.
        settings: of the CRFs.

    Returns:
        uint8 [H, W]: classes, 0 background, 255 ignored.
    """
    labels = np.concatenate([[0], classes]).astype(np.uint8)
    sure, possible = (labels[_crf_argmax(image, cams, score, settings)] for score in (high, low))
    return np.where(sure != 0, sure, np.where(possible != 0, IGNORED, 0)).astype(np.uint8)


def _crf_argmax(image: np.ndarray, cams: np.ndarray, background: float, settings: CRFSettings) -> np.ndarray:
    scores = np.concatenate([np.full((1, *image.shape[:2]), background, dtype=np.float32), cams])
    exponentials = np.exp(scores - scores.max(0))
    return dense_crf(image, exponentials / exponentials.sum(0), settings).argmax(0)
