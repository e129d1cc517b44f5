"""The class-token contrast: crops of uncertain regions resemble their image, crops of its background do not (ToCo)."""

import torch
from torch import Tensor

TEMPERATURE = 0.5


def contrast_loss(crops: Tensor, whole: Tensor, fits: Tensor) -> Tensor:
    """InfoNCE of an image's crops against the whole image, a scalar.

    With p the image's class token, q⁺ those of its N⁺ crops from uncertain regions and q⁻ those from its background,
    all projected to length 1, it is −1/N⁺ Σ log(exp(p·q⁺/τ) / (exp(p·q⁺/τ) + Σ exp(p·q⁻/τ))), and the mean over the
    images that have both kinds; without any such image 0.

    Source: ToCo (CVPR 2023), "class token contrast", with its temperature .5. There a projector of its own embeds the
    crops, and an EMA of that projector the whole image; here student and EMA teacher embed them, by the layers of their
    projector before the prototypes. That a crop meets only its own image's background, and that a crop's region is
    told by its middle patch, is ours: we are not sure of the paper's.

    Args:
        crops: [B * 2 * N, D], image by image, first those from uncertain regions.
        whole: [B, D], without gradient.
        fits: [B, 2, N] (bool), the crops that count.
    """
    likeness = (torch.unflatten(crops, 0, fits.shape) @ whole[:, None, :, None])[..., 0] / TEMPERATURE  # [B, 2, N]
    (uncertain, background), (positive, negative) = likeness.unbind(1), fits.unbind(1)
    against = (background.exp() * negative).sum(1, keepdim=True)
    each = torch.log1p(against * (-uncertain).exp())  # cosines over τ: no exponential is large
    of_image = (each * positive).sum(1) / positive.sum(1).clamp(min=1)
    counts = positive.any(1) & negative.any(1)
    return (of_image * counts).sum() / counts.sum().clamp(min=1)
