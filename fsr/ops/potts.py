"""Mean-field inference of a dense CRF with Potts terms, on the permutohedral lattice."""

import math

import torch
from torch import Tensor

from fsr.ops import reference
from fsr.ops.bilateral import check_deviations, check_pair
from fsr.ops.native import warn_of_reference


def mean_field(
    image: Tensor,
    logits: Tensor,
    iterations: int,
    *,
    spatial_weight: float,
    spatial_std: float,
    bilateral_weight: float,
    bilateral_xy_std: float,
    bilateral_rgb_std: float,
) -> Tensor:
    """Marginals of a dense CRF (Krähenbühl & Koltun 2011): the softmax of logits, sharpened along the image's edges.

    Q₀ = softmax(logits), then `iterations` times Q = softmax(logits + Σ_m w_m n_m K_m (n_m Q)) with the spatial kernel
    K_1 (x, y) and the bilateral one K_2 (x, y, r, g, b), both on the permutohedral lattice and normalised
    symmetrically by n_m = (K_m 1)^-½. Computed in float32, without gradient. Marginals below 1e-30 may
    come out as 1e-30.

    Args:
        image: finite [B, 3, H, W].
        logits: finite floating point [B, C, H, W]: minus the unary energies.
        iterations: 0 or more.
        spatial_weight: of the spatial Potts term.
        spatial_std: its standard deviation in pixels.
        bilateral_weight: of the bilateral Potts term.
        bilateral_xy_std: its standard deviation in pixels.
        bilateral_rgb_std: its standard deviation in the image's units.

    Returns:
        float32 [B, C, H, W].

    Raises:
        ValueError: as `bilateral_filter` does, for `iterations` below 0, and for logits or weights that are not finite
            (the native CUDA kernel does not look at the logits: NaN stays NaN).
    """
    check_pair("image", image, "logits", logits)
    check_deviations(spatial_std=spatial_std, bilateral_xy_std=bilateral_xy_std, bilateral_rgb_std=bilateral_rgb_std)
    for name, weight in (("spatial_weight", spatial_weight), ("bilateral_weight", bilateral_weight)):
        if not math.isfinite(weight):
            raise ValueError(f"{name} must be a finite number, got {weight}")
    if iterations < 0:
        raise ValueError(f"iterations must be 0 or more, got {iterations}")
    marginals: Tensor = _mean_field(
        image.detach().float(),
        logits.detach().float(),
        iterations,
        spatial_weight,
        spatial_std,
        bilateral_weight,
        bilateral_xy_std,
        bilateral_rgb_std,
    )
    return marginals


# The body is the reference, for devices that csrc/ registers no kernel for.
@torch.library.custom_op("fsr::mean_field", mutates_args=())
def _mean_field(
    image: Tensor,
    logits: Tensor,
    iterations: int,
    spatial_weight: float,
    spatial_std: float,
    bilateral_weight: float,
    bilateral_xy_std: float,
    bilateral_rgb_std: float,
) -> Tensor:
    warn_of_reference(logits.device.type)
    bilateral = bilateral_weight, bilateral_xy_std, bilateral_rgb_std
    return reference.mean_field(image, logits, iterations, (spatial_weight, spatial_std), bilateral)


@_mean_field.register_fake
def _(image: Tensor, logits: Tensor, *_: float) -> Tensor:
    return torch.empty_like(logits, memory_format=torch.contiguous_format)
