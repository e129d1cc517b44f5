"""The bilateral filter of an image, on the permutohedral lattice."""

import math

import torch
from torch import Tensor

from fsr.ops.reference import Lattice


def bilateral_filter(image: Tensor, values: Tensor, sigma_rgb: float, sigma_xy: float) -> Tensor:
    """Sum values over all pixels, weighted by how close two pixels are in place and colour.

    Result_i = Σ_j exp(-½|f_i - f_j|²) values_j, approximately and up to a constant, with f = (x/σ_xy, y/σ_xy,
    r/σ_rgb, g/σ_rgb, b/σ_rgb); see `Lattice`. It is not normalised. Computed in float32. Values that are not finite
    spoil the result around them, as in any sum.

    The gradient with respect to the values is the same filter of the incoming gradient (as released, exact up to the
    order of the lattice's axes); the image gets none.

    Args:
        image: [B, 3, H, W], finite.
        values: floating point [B, C, H, W].
        sigma_rgb: standard deviation in the image's units.
        sigma_xy: standard deviation in pixels.

    Returns:
        [B, C, H, W] with the type of the values.
    """
    _check(image, values, sigma_rgb, sigma_xy)
    return _BilateralFilter.apply(image, values, sigma_rgb, sigma_xy)


class _BilateralFilter(torch.autograd.Function):
    @staticmethod
    def forward(ctx, image: Tensor, values: Tensor, sigma_rgb: float, sigma_xy: float) -> Tensor:  # noqa: ANN001
        if values.numel() == 0:
            return torch.empty_like(values)
        ctx.lattice = Lattice(_features(image, sigma_rgb, sigma_xy))
        return _filter(ctx.lattice, values)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[None, Tensor, None, None]:  # noqa: ANN001
        return None, gradient if gradient.numel() == 0 else _filter(ctx.lattice, gradient), None, None


def _filter(lattice: Lattice, values: Tensor) -> Tensor:
    return lattice.filter(values.float().flatten(2)).view(values.shape).to(values.dtype)


def _features(image: Tensor, sigma_rgb: float, sigma_xy: float) -> Tensor:
    """Place and colour of each pixel in standard deviations, float32 [B, 5, HW]."""
    batch, _, height, width = image.shape
    y, x = torch.meshgrid(
        torch.arange(height, device=image.device), torch.arange(width, device=image.device), indexing="ij"
    )
    place = torch.stack([x, y]).float().expand(batch, -1, -1, -1)
    # Divided by a tensor: CUDA would multiply by a number's reciprocal, and the lattice would differ from the CPU's.
    sigma = image.new_tensor([sigma_xy, sigma_xy, sigma_rgb, sigma_rgb, sigma_rgb], dtype=torch.float32)
    return torch.cat([place, image.float()], dim=1).flatten(2) / sigma[:, None]


def _check(image: Tensor, values: Tensor, sigma_rgb: float, sigma_xy: float) -> None:
    if image.ndim != 4 or image.shape[1] != 3:
        raise ValueError(f"Expected an image [B, 3, H, W], got {list(image.shape)}")
    if values.ndim != 4:
        raise ValueError(f"Expected values [B, C, H, W], got {list(values.shape)}")
    if image.shape[0] != values.shape[0] or image.shape[2:] != values.shape[2:]:
        raise ValueError(
            "Expected image and values of the same batch, height and width, "
            f"got {list(image.shape)} and {list(values.shape)}"
        )
    if not values.is_floating_point():
        raise ValueError(f"Expected floating-point values, got {values.dtype}")
    if image.device != values.device:
        raise ValueError(f"Expected image and values on one device, got {image.device} and {values.device}")
    for name, sigma in (("sigma_rgb", sigma_rgb), ("sigma_xy", sigma_xy)):
        if not (math.isfinite(sigma) and sigma > 0):
            raise ValueError(f"{name} must be a finite number above 0, got {sigma}")
    if not torch.isfinite(image).all():
        raise ValueError("Expected a finite image, got one with NaN or infinity")
