// The bilateral filter on CUDA.
#include <ATen/ops/empty_like.h>

#include <algorithm>

#include "lattice_cuda.cuh"

namespace fsr {

at::Tensor bilateral_filter_cuda(
    const at::Tensor& any_image, const at::Tensor& any_values, double sigma_rgb, double sigma_xy) {
  check_inputs(any_image, any_values);
  const c10::cuda::CUDAGuard guard(any_values.device());
  const at::Tensor image = any_image.contiguous(), values = any_values.contiguous();
  const at::Tensor result = at::empty_like(values);
  if (values.numel() == 0) return result;
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
  const Pixels<5> pixels = bilateral_pixels(image, sigma_rgb, sigma_xy);
  Lattice<5> lattice(pixels.sets, pixels.patches);
  lattice.build(pixels, stream);
  const int patches = static_cast<int>(values.size(0)) * pixels.patches.count();
  const int64_t channels = values.size(1);
  constexpr int64_t kWidest = 128;  // channels at a time: bounds what the tables take
  const int widest = quads_for(std::min(channels, kWidest));
  Memory memory;
  auto* rows = memory.array<float4>(static_cast<int64_t>(patches) * kThreads * widest);
  auto *sums = memory.array<float4>(lattice.most() * widest), *other = memory.array<float4>(lattice.most() * widest);
  for (int64_t first = 0; first < channels; first += kWidest) {
    const Planes planes{channels, std::min(channels - first, kWidest), pixels.patches};
    const int64_t offset = first * pixels.points();
    const int quads = quads_for(planes.used);
    planes_to_rows<<<patches, kThreads, 0, stream>>>(planes, values.const_data_ptr<float>() + offset, 0, quads, rows);
    lattice.sum(1, rows, quads, sums);
    const float4* table = lattice.join(1, sums, quads, other);
    slice_patches<5><<<patches, kThreads, 0, stream>>>(
        lattice.tables(), table, quads, planes, result.mutable_data_ptr<float>() + offset);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }
  return result;
}

}  // namespace fsr
