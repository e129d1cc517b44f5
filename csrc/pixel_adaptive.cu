// Pixel-adaptive refinement on CUDA: masks smoothed along an image, each pixel listening to its neighbours at several
// dilations. fsr/ops/pixel_adaptive.py says what it computes and is its reference.
//
// One thread a pixel, and the sums in one order: bit-identical on every run. The masks of a training batch fit the L2
// cache, so an iteration costs little more than reading the affinity once.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime.h>

#include <algorithm>

#include "pixel_adaptive.h"

namespace fsr {
namespace {

constexpr int kThreadsOfPixels = 256;
constexpr int kMostDilations = 8;
constexpr int kChannels = 8;  // masks that a thread smooths at a time

// The neighbours of a pixel: eight directions at each dilation; the border is replicated.
struct Neighbours {
  int height, width, count;
  int dilation[kMostDilations];

  __device__ int at(int pixel, int number) const {
    const int direction = number % 8, place = direction < 4 ? direction : direction + 1, step = dilation[number / 8];
    const int y = pixel / width + (place / 3 - 1) * step, x = pixel % width + (place % 3 - 1) * step;
    return min(max(y, 0), height - 1) * width + min(max(x, 0), width - 1);
  }
};

// Affinity [images, neighbours, pixels]: the softmax over the neighbours of how alike they are, plus `position`.
__global__ void find_affinity(
    const float* image, const float* position, Neighbours neighbours, int images, float steepness, float* affinity) {
  const int pixels = neighbours.height * neighbours.width;
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i >= static_cast<int64_t>(images) * pixels) return;
  const int pixel = static_cast<int>(i % pixels);
  const float* own = image + i / pixels * 3 * pixels;
  float* row = affinity + i / pixels * neighbours.count * pixels + pixel;
  float mean[3] = {}, scale[3] = {};
  for (int n = 0; n < neighbours.count; ++n) {
    const int other = neighbours.at(pixel, n);
    for (int c = 0; c < 3; ++c) mean[c] += own[c * pixels + other];
  }
  for (float& m : mean) m /= static_cast<float>(neighbours.count);
  for (int n = 0; n < neighbours.count; ++n) {
    const int other = neighbours.at(pixel, n);
    for (int c = 0; c < 3; ++c) {
      const float deviation = own[c * pixels + other] - mean[c];
      scale[c] += deviation * deviation;
    }
  }
  for (float& s : scale) s = (sqrtf(s / static_cast<float>(neighbours.count - 1)) + 1e-8f) * steepness;
  float largest = -INFINITY, sum = 0;
  for (int n = 0; n < neighbours.count; ++n) {
    const int other = neighbours.at(pixel, n);
    float unlike = 0;
    for (int c = 0; c < 3; ++c) {
      const float distance = (own[c * pixels + other] - own[c * pixels + pixel]) / scale[c];
      unlike += distance * distance;
    }
    row[static_cast<int64_t>(n) * pixels] = -unlike / 3;
    largest = fmaxf(largest, -unlike / 3);
  }
  for (int n = 0; n < neighbours.count; ++n) sum += expf(row[static_cast<int64_t>(n) * pixels] - largest);
  for (int n = 0; n < neighbours.count; ++n) {
    float& entry = row[static_cast<int64_t>(n) * pixels];
    entry = expf(entry - largest) / sum + position[n];
  }
}

// to = Σ affinity · from over the neighbours, for masks [images, channels, pixels].
__global__ void smooth(
    const float* affinity, Neighbours neighbours, int images, int channels, const float* from, float* to) {
  const int pixels = neighbours.height * neighbours.width;
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i >= static_cast<int64_t>(images) * pixels) return;
  const int pixel = static_cast<int>(i % pixels), first = static_cast<int>(blockIdx.y) * kChannels;
  const float* row = affinity + i / pixels * neighbours.count * pixels + pixel;
  const int64_t plane = (i / pixels * channels + first) * static_cast<int64_t>(pixels);
  float sum[kChannels] = {};
  for (int n = 0; n < neighbours.count; ++n) {
    const float weight = row[static_cast<int64_t>(n) * pixels];
    const float* other = from + plane + neighbours.at(pixel, n);
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      if (first + c < channels) sum[c] += weight * other[static_cast<int64_t>(c) * pixels];
    }
  }
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    if (first + c < channels) to[plane + static_cast<int64_t>(c) * pixels + pixel] = sum[c];
  }
}

}  // namespace

at::Tensor pixel_adaptive_cuda(
    const at::Tensor& any_image,
    const at::Tensor& any_masks,
    at::IntArrayRef dilations,
    int64_t iterations,
    double steepness,
    const at::Tensor& position) {
  check_refinement(any_image, any_masks, dilations, position, kMostDilations);
  const c10::cuda::CUDAGuard guard(any_masks.device());
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
  const at::Tensor image = any_image.contiguous(), weights = position.contiguous();
  at::Tensor from = any_masks.contiguous(), to = at::empty_like(from);
  if (from.numel() == 0) return to;
  const int images = static_cast<int>(from.size(0)), channels = static_cast<int>(from.size(1));
  Neighbours neighbours{static_cast<int>(from.size(2)), static_cast<int>(from.size(3)), 8 * static_cast<int>(dilations.size())};
  std::copy(dilations.begin(), dilations.end(), neighbours.dilation);
  const int64_t points = static_cast<int64_t>(images) * neighbours.height * neighbours.width;
  const auto blocks = static_cast<unsigned>((points + kThreadsOfPixels - 1) / kThreadsOfPixels);
  const at::Tensor affinity = at::empty({points * neighbours.count}, from.options());
  find_affinity<<<blocks, kThreadsOfPixels, 0, stream>>>(
      image.const_data_ptr<float>(), weights.const_data_ptr<float>(), neighbours, images, static_cast<float>(steepness),
      affinity.mutable_data_ptr<float>());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  at::Tensor spare = iterations > 1 ? at::empty_like(from) : to;
  for (int64_t iteration = 0; iteration < iterations; ++iteration) {
    const dim3 grid(blocks, static_cast<unsigned>((channels + kChannels - 1) / kChannels));
    smooth<<<grid, kThreadsOfPixels, 0, stream>>>(
        affinity.const_data_ptr<float>(), neighbours, images, channels, from.const_data_ptr<float>(),
        to.mutable_data_ptr<float>());
    C10_CUDA_KERNEL_LAUNCH_CHECK();
    from = to;
    std::swap(to, spare);
  }
  return iterations > 0 ? from : from.clone();
}

}  // namespace fsr
