// Pixel-adaptive refinement, see fsr/ops/pixel_adaptive.py. It has a kernel on CUDA only.
#pragma once

#include "lattice.h"

namespace fsr {

// Guards the memory of callers that bypass the Python wrapper.
inline void check_refinement(
    const at::Tensor& image, const at::Tensor& masks, at::IntArrayRef dilations, const at::Tensor& position, int64_t most) {
  check_inputs(image, masks);
  TORCH_CHECK_VALUE(position.scalar_type() == at::kFloat, "Expected float32, got ", position.scalar_type());
  TORCH_CHECK_VALUE(
      position.device() == masks.device(), "Expected one device, got ", position.device(), " and ", masks.device());
  const auto count = static_cast<int64_t>(dilations.size());
  TORCH_CHECK_VALUE(1 <= count && count <= most, "Expected 1 to ", most, " dilations, got ", count);
  TORCH_CHECK_VALUE(
      position.dim() == 1 && position.size(0) == 8 * count,
      "Expected a weight for each of ",
      8 * count,
      " neighbours, got ",
      position.sizes());
}

// image [B, 3, H, W], masks [B, C, H, W], position [8 · dilations], all float32 on one GPU.
at::Tensor pixel_adaptive_cuda(
    const at::Tensor& image,
    const at::Tensor& masks,
    at::IntArrayRef dilations,
    int64_t iterations,
    double steepness,
    const at::Tensor& position);

}  // namespace fsr
