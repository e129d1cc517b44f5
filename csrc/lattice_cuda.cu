// The permutohedral lattice on CUDA: the bilateral filter and the dense CRF's mean field.
//
// Computes all images of a batch at once on the caller's stream, and never waits for the device. Only the device knows the
// number of vertices, so memory is allocated for the largest possible number and kernels stop at the count. Every sum
// is made by one thread in a fixed order: bit-identical on every run. An image that is not finite, or whose points span too
// many cells, makes the whole result NaN.
//
// Only c10's CUDA headers are included: ATen's want those of libraries that a lean toolkit lacks.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>

#include <algorithm>
#include <limits>

#include "lattice_kernels.cuh"

namespace fsr {
namespace {

// Built once for the pixels of a batch, filters any number of values on them.
template <int D>
class Lattice {
 public:
  Lattice(const Pixels<D>& pixels, const at::TensorOptions& options)
      : all_points_(pixels.sets * pixels.height * pixels.width),
        points_(pixels.height * pixels.width),
        most_(all_points_ * (D + 1)),
        options_(options),
        stream_(c10::cuda::getCurrentCUDAStream()) {
    TORCH_CHECK_VALUE(
        most_ < std::numeric_limits<int32_t>::max(), "Too many pixels at once: ", all_points_, ", 2^31 / ", D + 1, " is the most");
    const Scale<D> scale;
    summary_ = array<uint8_t>(sizeof(Summary<D>));
    weights_ = array<float>(most_);
    order_ = array<int32_t>(most_);
    corner_vertex_ = array<int32_t>(most_);
    vertex_ = array<int32_t>(most_);
    starts_ = array<int32_t>(most_ + 1);
    neighbours_ = array<int32_t>((D + 1) * most_ * 2);
    const at::Tensor numbers = array<int64_t>(most_), sorted = array<int64_t>(most_), unsorted = array<int32_t>(most_);

    start_summary<D><<<1, 1, 0, stream_>>>(summary());
    find_range<D><<<blocks_for(all_points_), kThreads, 0, stream_>>>(pixels, scale, summary());
    number_points<D><<<1, 1, 0, stream_>>>(summary(), pixels.sets);
    find_corners<D><<<blocks_for(all_points_), kThreads, 0, stream_>>>(
        pixels, scale, summary(), data<int64_t>(numbers), data<int32_t>(unsorted), data<float>(weights_));
    const int count = static_cast<int>(most_);
    with_workspace([&](void* workspace, size_t& bytes) {
      return cub::DeviceRadixSort::SortPairs(
          workspace,
          bytes,
          data<int64_t>(numbers),
          data<int64_t>(sorted),
          data<int32_t>(unsorted),
          data<int32_t>(order_),
          count,
          0,
          64,
          stream_);
    });
    mark_first<<<blocks_for(most_), kThreads, 0, stream_>>>(data<int64_t>(sorted), most_, data<int32_t>(unsorted));
    with_workspace([&](void* workspace, size_t& bytes) {
      return cub::DeviceScan::InclusiveSum(
          workspace, bytes, data<int32_t>(unsorted), data<int32_t>(vertex_), count, stream_);
    });
    name_vertices<<<blocks_for(most_), kThreads, 0, stream_>>>(
        data<int64_t>(sorted),
        data<int32_t>(vertex_),
        data<int32_t>(order_),
        most_,
        data<int64_t>(numbers),
        data<int32_t>(starts_),
        data<int32_t>(corner_vertex_));
    find_neighbours<D><<<blocks_for((D + 1) * most_), kThreads, 0, stream_>>>(
        summary(), data<int64_t>(numbers), last_vertex(), most_, data<int32_t>(neighbours_));
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }

  // result = base + weight * n K (n values), all [sets, channels, points]. `norm` null means n = 1, `values` ones, `base`
  // zeros; `result` may be `base`.
  void filter(
      const float* values, int64_t channels, const float* norm, float weight, const float* base, float* result) const {
    // A group of channels is as wide as a warp, and bounds what the tables take.
    const int64_t widest = std::min<int64_t>(channels, 32);
    const at::Tensor row_memory = array<float>(all_points_ * widest);
    const at::Tensor one = array<float>(most_ * widest), other = array<float>(most_ * widest);
    for (int64_t first = 0; first < channels; first += widest) {
      const int64_t group = std::min(widest, channels - first);
      float *rows = data<float>(row_memory), *from = data<float>(one), *to = data<float>(other);
      make_rows<<<blocks_for(all_points_ * group), kThreads, 0, stream_>>>(
          values, norm, all_points_, points_, channels, first, group, rows);
      splat<D><<<blocks_for(most_ * 32), kThreads, 0, stream_>>>(
          rows,
          group,
          data<int32_t>(order_),
          data<float>(weights_),
          data<int32_t>(starts_),
          summary(),
          last_vertex(),
          from);
      for (int axis = 0; axis <= D; ++axis) {
        const int32_t* neighbours = data<int32_t>(neighbours_) + axis * most_ * 2;
        blur<<<blocks_for(most_ * group), kThreads, 0, stream_>>>(from, neighbours, last_vertex(), group, to);
        std::swap(from, to);
      }
      slice<D><<<blocks_for(all_points_ * group), kThreads, 0, stream_>>>(
          from,
          data<int32_t>(corner_vertex_),
          data<float>(weights_),
          summary(),
          norm,
          weight * kSliceFactor<D>,
          all_points_,
          points_,
          channels,
          first,
          group,
          base,
          result);
    }
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  }

  // n = (K 1 + 1e-20)^-1/2 at every point.
  at::Tensor normalisation() const {
    const at::Tensor norm = array<float>(all_points_);
    filter(nullptr, 1, nullptr, 1, nullptr, data<float>(norm));
    invert_root<<<blocks_for(all_points_), kThreads, 0, stream_>>>(data<float>(norm), all_points_);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
    return norm;
  }

 private:
  template <class T>
  at::Tensor array(int64_t size) const {
    return at::empty({size}, options_.dtype(c10::CppTypeToScalarType<T>::value));
  }
  template <class T>
  static T* data(const at::Tensor& tensor) {
    return static_cast<T*>(tensor.mutable_data_ptr());
  }
  Summary<D>* summary() const { return static_cast<Summary<D>*>(summary_.mutable_data_ptr()); }
  const int32_t* last_vertex() const { return data<int32_t>(vertex_) + most_ - 1; }

  // cub's functions tell the size of their workspace when called without one.
  template <class Call>
  void with_workspace(const Call& call) const {
    size_t bytes = 0;
    C10_CUDA_CHECK(call(nullptr, bytes));
    const at::Tensor workspace = array<uint8_t>(static_cast<int64_t>(bytes));
    C10_CUDA_CHECK(call(workspace.mutable_data_ptr(), bytes));
  }

  int64_t all_points_, points_, most_;
  at::TensorOptions options_;
  cudaStream_t stream_;
  at::Tensor summary_;        // Summary<D>
  at::Tensor weights_;        // [points, D + 1]
  at::Tensor corner_vertex_;  // [points, D + 1]
  at::Tensor order_;          // the corners sorted by their vertices
  at::Tensor vertex_;         // the vertex of each of them; the last is the number of vertices, less 1
  at::Tensor starts_;         // where each vertex's corners start in `order_`
  at::Tensor neighbours_;     // [D + 1, most, 2]
};

Pixels<5> bilateral_pixels(const at::Tensor& image, double sigma_rgb, double sigma_xy) {
  const auto xy = static_cast<float>(sigma_xy), rgb = static_cast<float>(sigma_rgb);
  return {image.const_data_ptr<float>(), image.size(0), image.size(2), image.size(3), {xy, xy, rgb, rgb, rgb}};
}

}  // namespace

at::Tensor bilateral_filter_cuda(
    const at::Tensor& any_image, const at::Tensor& any_values, double sigma_rgb, double sigma_xy) {
  check_sizes(any_image, any_values);
  const c10::cuda::CUDAGuard guard(any_values.device());
  const at::Tensor image = any_image.contiguous(), values = any_values.contiguous();
  const at::Tensor result = at::empty_like(values);
  if (values.numel() == 0) return result;
  const Lattice<5> lattice(bilateral_pixels(image, sigma_rgb, sigma_xy), values.options());
  lattice.filter(
      values.const_data_ptr<float>(), values.size(1), nullptr, 1, nullptr, result.mutable_data_ptr<float>());
  return result;
}

at::Tensor mean_field_cuda(
    const at::Tensor& any_image,
    const at::Tensor& any_logits,
    int64_t iterations,
    double spatial_weight,
    double spatial_std,
    double bilateral_weight,
    double bilateral_xy_std,
    double bilateral_rgb_std) {
  check_sizes(any_image, any_logits);
  const c10::cuda::CUDAGuard guard(any_logits.device());
  const at::Tensor image = any_image.contiguous(), logits = any_logits.contiguous();
  const at::Tensor marginals = at::empty_like(logits), scores = at::empty_like(logits);
  if (logits.numel() == 0) return marginals;
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
  const int64_t channels = logits.size(1), points = logits.size(2) * logits.size(3), all_points = logits.size(0) * points;
  const auto sigma = static_cast<float>(spatial_std);
  // The same for every image, but each image has its own values.
  const Lattice<2> spatial({nullptr, logits.size(0), logits.size(2), logits.size(3), {sigma, sigma}}, logits.options());
  const Lattice<5> bilateral(bilateral_pixels(image, bilateral_rgb_std, bilateral_xy_std), logits.options());
  const at::Tensor spatial_norm = spatial.normalisation(), bilateral_norm = bilateral.normalisation();
  float* now = marginals.mutable_data_ptr<float>();
  float* score = scores.mutable_data_ptr<float>();
  const auto normalise = [&](const float* from) {
    softmax<<<blocks_for(all_points), kThreads, 0, stream>>>(from, all_points, points, channels, now);
    C10_CUDA_KERNEL_LAUNCH_CHECK();
  };
  const float* logit = logits.const_data_ptr<float>();
  normalise(logit);
  for (int64_t iteration = 0; iteration < iterations; ++iteration) {
    spatial.filter(now, channels, spatial_norm.const_data_ptr<float>(), spatial_weight, logit, score);
    bilateral.filter(now, channels, bilateral_norm.const_data_ptr<float>(), bilateral_weight, score, score);
    normalise(score);
  }
  return marginals;
}

}  // namespace fsr
