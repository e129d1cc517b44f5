"""Dense CRF (Krähenbühl & Koltun 2011), and pseudo labels from CAMs with it."""

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fsr.bounded_map import bounded_map
from fsr.data.images import IGNORED
from fsr.ops import mean_field


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


Backend = Literal["native", "pydensecrf"]


def dense_crf(
    image: np.ndarray,
    probabilities: np.ndarray,
    settings: CRFSettings = INFERENCE,
    backend: Backend = "native",
) -> np.ndarray:
    """Sharpen class probabilities along the image's edges (METHOD "Dense CRF").

    Args:
        image: uint8 [H, W, 3].
        probabilities: finite [C, H, W].
        settings: of the Potts terms.
        backend: this project's operator on all threads of torch, or pydensecrf on one.

    Returns:
        Marginals, float32 [C, H, W].

    Raises:
        ValueError: for shapes, types or a backend that do not fit, and for probabilities that are not finite.

    Example:
        An uncertain pixel takes the class of its black neighbours.

        >>> image = np.zeros((8, 8, 3), np.uint8)
        >>> image[:, 4:] = 255
        >>> probabilities = np.full((2, 8, 8), 0.1, np.float32)
        >>> probabilities[0, :, :4] = probabilities[1, :, 4:] = 0.9
        >>> probabilities[:, 3, 1] = 0.4, 0.6
        >>> dense_crf(image, probabilities).argmax(0)[3]
        array([0, 0, 0, 0, 1, 1, 1, 1])
    """
    height, width = image.shape[:2]
    if image.dtype != np.uint8 or image.shape != (height, width, 3):
        raise ValueError(f"Expected an image uint8 [H, W, 3], got {image.dtype} {list(image.shape)}")
    if probabilities.ndim != 3 or probabilities.shape[1:] != (height, width):
        raise ValueError(f"Expected probabilities [C, {height}, {width}], got {list(probabilities.shape)}")
    if not np.isfinite(probabilities.sum(dtype=np.float64)):
        raise ValueError("Expected finite probabilities, got some with NaN or infinity")
    if backend == "pydensecrf":
        return _pydensecrf(image, probabilities, settings)
    if backend != "native":
        raise ValueError(f"Expected the backend native or pydensecrf, got {backend}")
    # Torch takes no arrays with negative strides, and warns of read-only ones.
    image, probabilities = (np.require(array, requirements=["C", "W"]) for array in (image, probabilities))
    planes = torch.from_numpy(image).permute(2, 0, 1)
    return dense_crf_batch(planes[None], torch.from_numpy(probabilities)[None], settings)[0].numpy()


def dense_crf_batch(images: Tensor, probabilities: Tensor, settings: CRFSettings = INFERENCE) -> Tensor:
    """The dense CRF of images of one size on their own device; a GPU computes them all at once, and is not waited for.

    Args:
        images: 8-bit colour values [B, 3, H, W].
        probabilities: floating point [B, C, H, W], on the same device.
        settings: of the Potts terms.

    Returns:
        Marginals, float32 [B, C, H, W].
    """
    return mean_field(images, probabilities.float().clamp(1e-5, 1).log_(), **dataclasses.asdict(settings))


def dense_crf_stream(
    pairs: Iterable[tuple[np.ndarray, np.ndarray]], settings: CRFSettings = INFERENCE, workers: int | None = None
) -> Iterator[np.ndarray]:
    """The marginals of many images in their order, computed with one image on each core.

    Only a few pairs are in memory at a time, see `bounded_map`.

    Args:
        pairs: image uint8 [H, W, 3] and probabilities [C, H, W], see `dense_crf`.
        settings: of the Potts terms.
        workers: images at a time; by default torch's number of threads.

    Yields:
        float32 [C, H, W] for each pair.

    Example:
        >>> pairs = ((np.zeros((8, 8, 3), np.uint8), np.full((2, 8, 8), 0.5)) for _ in range(3))
        >>> [marginals.shape for marginals in dense_crf_stream(pairs, workers=2)]
        [(2, 8, 8), (2, 8, 8), (2, 8, 8)]
    """
    return bounded_map(
        lambda pair: dense_crf(pair[0], pair[1], settings), pairs, workers or torch.get_num_threads(), waiting=2
    )


def _pydensecrf(image: np.ndarray, probabilities: np.ndarray, settings: CRFSettings) -> np.ndarray:
    from pydensecrf import densecrf  # an independent implementation, which only comparisons ask for

    classes, height, width = probabilities.shape
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
    image: Tensor,
    cams: Tensor,
    classes: Tensor,
    high: float,
    low: float,
    settings: CRFSettings = PSEUDO_LABEL,
) -> Tensor:
    """Pseudo label from the CAMs of the present classes, by two CRFs that differ in the background's score.

    Args:
        image: 8-bit colour values [3, H, W].
        cams: [P, H, W] in [0, 1].
        classes: class id of each CAM, [P], counted from 1.
        high: background score of the first CRF; its foreground is final.
        low: background score of the second CRF; its background is final, and the rest is ignored.
        settings: of both CRFs.

    Returns:
        uint8 [H, W]: class ids, 0 background, 255 ignored.
    """
    scores = torch.stack([F.pad(cams, (0, 0, 0, 0, 1, 0), value=background) for background in (high, low)])
    marginals = dense_crf_batch(image.expand(2, -1, -1, -1), scores.softmax(1), settings)
    ids = F.pad(classes, (1, 0)).to(torch.uint8)
    sure, possible = ids[marginals.max(dim=1).indices].unbind()
    return sure.masked_fill((sure == 0) & (possible != 0), IGNORED)
