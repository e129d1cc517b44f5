"""The bilateral filter of an image, on the permutohedral lattice."""

import math
from typing import Any

import torch
from torch import Tensor

from fsr.ops import reference
from fsr.ops.native import warn_of_reference


def bilateral_filter(image: Tensor, values: Tensor, sigma_rgb: float, sigma_xy: float) -> Tensor:
    """Sum values over all pixels, weighted by how close two pixels are in place and colour.

    Result_i = Σ_j exp(-½|f_i - f_j|²) values_j, approximately and up to a constant, with f = (x/σ_xy, y/σ_xy,
    r/σ_rgb, g/σ_rgb, b/σ_rgb); see `Lattice`. It is not normalised. Computed in float32. Values that are not finite
    spoil the result around them, as in any sum.

    The gradient with respect to the values is the same filter of the incoming gradient (as released, exact up to the
    order of the lattice's axes); the image gets none. The operator is `torch.ops.fsr.bilateral_filter`. It is
    native where the extension has kernels for the device; elsewhere the plain-torch reference runs, with one warning.
    Results are bit-identical on every run and for every number of threads.

    Args:
        image: [B, 3, H, W], finite.
        values: floating point [B, C, H, W].
        sigma_rgb: standard deviation in the image's units.
        sigma_xy: standard deviation in pixels.

    Returns:
        [B, C, H, W] with the type of the values.

    Raises:
        ValueError: for shapes, types, devices or standard deviations that do not fit; for an image that is not finite,
            and for one that spans more lattice cells than can be numbered. The native CUDA kernel does not look for the
            last two, for it would have to wait for the device: there the whole result is NaN.

    Example:
        A value spreads over the pixels of its own colour, not across an edge.

        >>> image = torch.zeros(1, 3, 8, 8)
        >>> image[..., 4:] = 255
        >>> values = torch.zeros(1, 1, 8, 8)
        >>> values[..., 3, 1] = 1
        >>> (bilateral_filter(image, values, sigma_rgb=15, sigma_xy=10)[0, 0, 3] > 0.01).tolist()
        [True, True, True, True, False, False, False, False]
    """
    check_pair("image", image, "values", values)
    check_deviations(sigma_rgb=sigma_rgb, sigma_xy=sigma_xy)
    result: Tensor = _bilateral_filter(image.detach().float(), values.float(), sigma_rgb, sigma_xy)
    return result.to(values.dtype)


def check_pair(image_name: str, image: Tensor, values_name: str, values: Tensor) -> None:
    """Raise ValueError unless image [B, 3, H, W] and floating-point values [B, C, H, W] belong together."""
    if image.ndim != 4 or image.shape[1] != 3:
        raise ValueError(f"Expected an {image_name} [B, 3, H, W], got {list(image.shape)}")
    if values.ndim != 4:
        raise ValueError(f"Expected {values_name} [B, C, H, W], got {list(values.shape)}")
    if image.shape[0] != values.shape[0] or image.shape[2:] != values.shape[2:]:
        raise ValueError(
            f"Expected {image_name} and {values_name} of the same batch, height and width, "
            f"got {list(image.shape)} and {list(values.shape)}"
        )
    if not values.is_floating_point():
        raise ValueError(f"Expected floating-point {values_name}, got {values.dtype}")
    if image.device != values.device:
        raise ValueError(
            f"Expected {image_name} and {values_name} on one device, got {image.device} and {values.device}"
        )


def check_deviations(**deviations: float) -> None:
    """Raise ValueError for a standard deviation that is not a finite number above 0."""
    for name, sigma in deviations.items():
        if not (math.isfinite(sigma) and sigma > 0):
            raise ValueError(f"{name} must be a finite number above 0, got {sigma}")


# The body is the reference, for devices that csrc/ registers no kernel for.
@torch.library.custom_op("fsr::bilateral_filter", mutates_args=())
def _bilateral_filter(image: Tensor, values: Tensor, sigma_rgb: float, sigma_xy: float) -> Tensor:
    warn_of_reference(values.device.type)
    return reference.bilateral_filter(image, values, sigma_rgb, sigma_xy)


@_bilateral_filter.register_fake
def _(image: Tensor, values: Tensor, sigma_rgb: float, sigma_xy: float) -> Tensor:
    return torch.empty_like(values, memory_format=torch.contiguous_format)


def _keep_image(ctx: Any, inputs: tuple[Tensor, Tensor, float, float], output: Tensor) -> None:
    image, _, *ctx.sigmas = inputs
    ctx.save_for_backward(image)


def _filter_gradient(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None, None]:
    return None, _bilateral_filter(*ctx.saved_tensors, gradient, *ctx.sigmas), None, None


_bilateral_filter.register_autograd(_filter_gradient, setup_context=_keep_image)
