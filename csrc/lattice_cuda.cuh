// The permutohedral lattice on CUDA, as the host sees it: its memory, and the launches that build it and filter with it.
//
// Computes all images of a batch at once, in the order of a stream, and never waits for the device. Only the device knows
// the number of vertices, so memory is allocated for the largest possible number, grids are as large as the device, and
// kernels stop at the count. Every sum is made in a fixed order that depends on nothing but its own image: the same bits on
// every run, and for an image alone and in a batch. An image that is not finite, or whose points span too many cells, makes
// the result of all images that are computed with it NaN.
//
// Only c10's CUDA headers are included: ATen's want those of libraries that a lean toolkit lacks.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <utility>
#include <vector>

#include "lattice_kernels.cuh"

namespace fsr {
namespace {

// Arrays on the current device. Not tensors: in torch's deterministic mode new tensors are filled, and most of what the
// largest possible lattice takes is never touched.
class Memory {
 public:
  template <class T>
  T* array(int64_t size) {
    blocks_.push_back(c10::cuda::CUDACachingAllocator::get()->allocate(size * sizeof(T)));
    return static_cast<T*>(blocks_.back().get());
  }

 private:
  std::vector<c10::DataPtr> blocks_;
};

// Blocks that fill the device four times, so that it matters little when the last ones start.
int device_blocks() {
  int device = 0, processors = 0;
  C10_CUDA_CHECK(cudaGetDevice(&device));
  C10_CUDA_CHECK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device));
  return processors * 4 * 6;
}

// Built for the pixels of images of one size, it filters any number of values on them; its memory may be built in again.
template <int D>
class Lattice {
 public:
  // For `sets` images at the most.
  Lattice(int64_t sets, const Patches& patches) : image_patches_(patches.count()), blocks_(device_blocks()) {
    const int64_t most = sets * image_patches_ * kCorners<D>;
    TORCH_CHECK_VALUE(
        most < 1 << 30,
        "Too many pixels at once: ",
        sets * patches.height * patches.width,
        ", 2^30 / ",
        D + 1,
        " is the most");
    tables_.summary = memory_.array<Summary<D>>(1);
    tables_.image_patches = image_patches_;
    tables_.corners = memory_.array<Term>(most);
    tables_.patch_shares = memory_.array<int2>(sets * image_patches_);
    tables_.members = memory_.array<uint16_t>(most);
    tables_.shares = memory_.array<int2>(most);
    tables_.share_vertex = memory_.array<int32_t>(most);
    tables_.sources = memory_.array<int32_t>(most);
    tables_.vertex_shares = memory_.array<int2>(most);
    tables_.long_vertices = memory_.array<int32_t>(most / kFewShares + 1);
    tables_.neighbours = memory_.array<int2>((D + 1) * most);
    found_ = {memory_.array<unsigned long long>(2 * most), memory_.array<int32_t>(2 * most), &tables_.summary->shares};
    share_numbers_ = memory_.array<unsigned long long>(most);
    numbers_ = memory_.array<unsigned long long>(most);
    places_ = memory_.array<int32_t>(most);
    begins_ = memory_.array<int32_t>(most);
  }

  void build(const Pixels<D>& pixels, cudaStream_t stream) {
    stream_ = stream;
    patches_ = static_cast<int>(pixels.sets) * image_patches_;
    tables_.most = static_cast<int64_t>(patches_) * kCorners<D>;
    const Scale<D> scale;
    start_summary<D><<<1, 1, 0, stream_>>>(tables_.summary);
    find_range<D><<<blocks_ / 8, kThreads, 0, stream_>>>(pixels, scale, tables_.summary);
    number_vertices<D><<<1, 1, 0, stream_>>>(tables_.summary, pixels.sets);
    cut_patches<D><<<patches_, kThreads, 0, stream_>>>(pixels, scale, tables_, share_numbers_);
    clear_table<<<blocks_, kThreads, 0, stream_>>>(found_);
    find_vertices<D><<<blocks_, kThreads, 0, stream_>>>(tables_, found_, share_numbers_, numbers_);
    count_shares<D><<<blocks_, kThreads, 0, stream_>>>(tables_, found_, places_);
    place_lists<D><<<blocks_, kThreads, 0, stream_>>>(tables_);
    list_begins<D><<<blocks_, kThreads, 0, stream_>>>(tables_, places_, begins_);
    list_shares<D><<<blocks_, kThreads, 0, stream_>>>(tables_, begins_);
    name_corners<D><<<blocks_, kThreads, 0, stream_>>>(tables_);
    find_neighbours<D><<<blocks_, kThreads, 0, stream_>>>(tables_, found_, numbers_);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }

  // From now on it works on this stream.
  void set_stream(cudaStream_t stream) { stream_ = stream; }

  const Tables<D>& tables() const { return tables_; }
  // Shares at the most, and so vertices.
  int64_t most() const { return tables_.most; }

  int blocks() const { return blocks_; }

  // The sums of shares [images, most, quads] from rows; null means ones.
  void sum(int images, const float4* rows, int quads, float4* sums) const {
    sum_patches<D><<<dim3(patches_, images), kThreads, 0, stream_>>>(tables_, rows, quads, sums);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }

  // The blurred table [images, most, quads] of sums of shares; it lies in `sums` or in `other`.
  const float4* join(int images, float4* sums, int quads, float4* other) const {
    join_shares<D><<<dim3(blocks_, images), kThreads, 0, stream_>>>(tables_, sums, quads, other);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
    return blur(images, other, quads, sums);
  }

  // A table [images, most, quads] blurred; it lies in `table` or in `other`.
  const float4* blur(int images, float4* table, int quads, float4* other) const {
    float4 *from = table, *to = other;
    for (int axis = 0; axis <= D; axis += 2, std::swap(from, to)) {
      fsr::blur<D><<<dim3(blocks_, images), kThreads, 0, stream_>>>(tables_, axis, from, quads, to);
    }
    C10_CUDA_KERNEL_LAUNCH_CHECK();
    return from;
  }

  // From now on the lattice filters with n K n, n = (K 1 + 1e-20)^-1/2. Takes two tables of one quad.
  void normalise(float4* sums, float4* other) const {
    sum(1, nullptr, 1, sums);
    fsr::normalise<D><<<patches_, kThreads, 0, stream_>>>(tables_, join(1, sums, 1, other));
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }

 private:
  int image_patches_, blocks_, patches_ = 0;
  cudaStream_t stream_ = nullptr;
  Memory memory_;
  Tables<D> tables_{};
  VertexTable found_{};
  unsigned long long *share_numbers_, *numbers_;
  int32_t *places_, *begins_;
};

inline Pixels<5> bilateral_pixels(const at::Tensor& image, double sigma_rgb, double sigma_xy) {
  TORCH_CHECK_VALUE(image.size(2) * image.size(3) < 1 << 30, "Too many pixels: 2^30 is the most of an image");
  const Patches patches{static_cast<int32_t>(image.size(2)), static_cast<int32_t>(image.size(3))};
  const auto xy = static_cast<float>(sigma_xy), rgb = static_cast<float>(sigma_rgb);
  return {image.const_data_ptr<float>(), image.size(0), patches, {xy, xy, rgb, rgb, rgb}};
}

inline int quads_for(int64_t channels) { return static_cast<int>((channels + 3) / 4); }

}  // namespace
}  // namespace fsr
