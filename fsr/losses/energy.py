"""The dense energy loss: neighbouring pixels of like colour should share their class (Tang et al., ECCV 2018)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fsr.data.images import IGNORED
from fsr.data.transforms import denormalise
from fsr.ops import bilateral_filter
from fsr.resize import resize


def energy_loss(
    logits: Tensor,
    image: Tensor,
    label: Tensor,
    *,
    weight: float = 1e-7,
    sigma_rgb: float = 15.0,
    sigma_xy: float = 100.0,
    scale: float = 0.5,
) -> Tensor:
    """Dense energy of the softmax of logits [B, C, h, w], a scalar (METHOD "reg").

    With S the probabilities and A their bilateral filter, both at `scale`, it is -weight · Σ S·gate·A / B. The gate is
    1 on ignored pixels, else 1 - max S: it fades where the prediction is certain.

    Args:
        logits: at the patch grid or any other size.
        image: network input [B, 3, H, W], normalised.
        label: [B, H, W], 255 ignored.
        weight: factor of the loss.
        sigma_rgb: standard deviation in 8-bit colour values.
        sigma_xy: standard deviation in pixels of the image (not of its scaled copy).
        scale: size at which the image is filtered, as a fraction of the input's.
    """
    height, width = image.shape[-2:]
    probabilities = resize(logits, (height, width)).softmax(1)
    probabilities = resize(probabilities, (int(height * scale), int(width * scale)))
    with torch.no_grad():
        image = denormalise(_nearest(image, scale))
        ignored = _nearest(label[:, None].float(), scale) == IGNORED
        filtered = bilateral_filter(image, probabilities, sigma_rgb, sigma_xy * scale)
        gate = torch.where(ignored, 1.0, (1 - probabilities.amax(1, keepdim=True)).clamp(min=0))
        pull = gate * filtered  # [B, C, H·scale, W·scale]
    # Σ S·A holds S twice, A being a sum of S: the gradient is twice that of S with A held constant. The value is not.
    doubled = 2 * probabilities - probabilities.detach()
    return -weight * (doubled * pull).sum() / len(image)


def _nearest(image: Tensor, scale: float) -> Tensor:
    return F.interpolate(image, scale_factor=scale, mode="nearest")
