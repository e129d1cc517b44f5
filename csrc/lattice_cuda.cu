// The permutohedral lattice on CUDA: the bilateral filter and the dense CRF's mean field.
//
// All images of a batch at once, on the caller's stream, and without asking the device for anything: how many vertices there
// are is known to the device alone, so memory is made for the most there can be, and kernels stop at the count. Every sum
// is made by one thread in a fixed order: the same bits on every run. An image that is not finite, or whose points span too
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

#include "lattice.h"

namespace fsr {
namespace {

constexpr int kThreads = 256;

int blocks_for(int64_t threads) {
  return static_cast<int>(std::clamp<int64_t>((threads + kThreads - 1) / kThreads, 1, 1 << 16));
}

// for (i in [0, count)) over all threads of the grid.
#define FSR_EACH(i, count) \
  for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < (count); \
       i += static_cast<int64_t>(gridDim.x) * blockDim.x)

struct OnePoint {
  using Real = float;
  using Int = int;
  static __device__ __forceinline__ int less(float a, float b) { return a < b; }
  static __device__ __forceinline__ int less(int a, int b) { return a < b; }
  // Points too far out are refused, but not before they went through here.
  static __device__ __forceinline__ int to_int(float a) { return __float2int_rn(fminf(fmaxf(a, -1e9f), 1e9f)); }
  static __device__ __forceinline__ float to_real(int a) { return __int2float_rn(a); }
  static __device__ __forceinline__ float round(float a) { return rintf(a); }
};

template <int D>
struct Pixels {
  const float* image;  // [sets, 3, height, width]; not read if D = 2
  int64_t sets, height, width;
  float sigma[D];

  __device__ int64_t points() const { return height * width; }  // of a set

  __device__ void features(int64_t set, int64_t pixel, float (&feature)[D]) const {
    feature[0] = __fdiv_rn(static_cast<float>(pixel % width), sigma[0]);
    feature[1] = __fdiv_rn(static_cast<float>(pixel / width), sigma[1]);
    for (int i = 2; i < D; ++i) feature[i] = __fdiv_rn(image[(set * 3 + i - 2) * points() + pixel], sigma[i]);
  }
};

// What the device finds out about all points, and what follows from it.
template <int D>
struct Summary {
  int32_t low[D], high[D];
  int32_t far;  // not 0 if float32 does not tell where some point lies, or it is NaN or infinite
  int32_t valid;
  Numbering<D> numbering;
};

template <int D>
__global__ void start_summary(Summary<D>* summary) {
  for (int i = 0; i < D; ++i) {
    summary->low[i] = INT32_MAX;
    summary->high[i] = INT32_MIN;
  }
  summary->far = 0;
}

template <int D>
__global__ void find_range(Pixels<D> pixels, Scale<D> scale, Summary<D>* summary) {
  FSR_EACH(i, pixels.sets * pixels.points()) {
    float feature[D], cell[D + 1], inside[D + 1];
    int rank[D + 1];
    pixels.features(i / pixels.points(), i % pixels.points(), feature);
    enclosing_simplex<D, OnePoint>(feature, scale.factor, cell, rank, inside);
    bool near = true;
    for (int c = 0; c <= D; ++c) near &= fabsf(cell[c]) <= kFarthestCell;
    if (!near) {
      atomicOr(&summary->far, 1);
      continue;
    }
    for (int c = 0; c < D; ++c) {
      const int whole = static_cast<int>(cell[c]);
      // Most points change nothing; the order of those that do makes no difference.
      if (whole < summary->low[c]) atomicMin(&summary->low[c], whole);
      if (whole > summary->high[c]) atomicMax(&summary->high[c], whole);
    }
  }
}

template <int D>
__global__ void number_points(Summary<D>* summary, int64_t sets) {
  summary->valid = !summary->far && summary->numbering.fit(summary->low, summary->high, sets);
}

// Each point's corners: their vertices' numbers, and their weights. All numbers are 0 if there is no valid lattice.
template <int D>
__global__ void find_corners(
    Pixels<D> pixels, Scale<D> scale, const Summary<D>* summary, int64_t* numbers, int32_t* order, float* weights) {
  FSR_EACH(i, pixels.sets * pixels.points()) {
    float feature[D], cell[D + 1], inside[D + 1];
    int rank[D + 1], falling[D + 1];
    int32_t whole[D];
    const int64_t set = i / pixels.points(), first = i * (D + 1);
    for (int r = 0; r <= D; ++r) order[first + r] = static_cast<int32_t>(first + r);
    if (!summary->valid) {
      for (int r = 0; r <= D; ++r) {
        numbers[first + r] = 0;
        weights[first + r] = 0;
      }
      continue;
    }
    pixels.features(set, i % pixels.points(), feature);
    enclosing_simplex<D, OnePoint>(feature, scale.factor, cell, rank, inside);
    corner_weights<D>(inside, rank, weights + first, falling);
    for (int c = 0; c < D; ++c) whole[c] = static_cast<int32_t>(cell[c]);
    int64_t number = summary->numbering.origin(whole, set);
    for (int r = 0; r <= D; ++r) {
      numbers[first + r] = number;
      number += summary->numbering.step[falling[r]];
    }
  }
}

__global__ void mark_first(const int64_t* sorted, int64_t count, int32_t* first) {
  FSR_EACH(i, count) first[i] = i > 0 && sorted[i] != sorted[i - 1];
}

// `vertex` [count] is each sorted corner's vertex. From it: the vertices' numbers, where their corners start, and the
// vertex of each corner of each point. `starts` has one entry more than there are vertices.
__global__ void name_vertices(
    const int64_t* sorted,
    const int32_t* vertex,
    const int32_t* order,
    int64_t count,
    int64_t* numbers,
    int32_t* starts,
    int32_t* corner_vertex) {
  FSR_EACH(i, count) {
    corner_vertex[order[i]] = vertex[i];
    if (i == 0 || vertex[i] != vertex[i - 1]) {
      numbers[vertex[i]] = sorted[i];
      starts[vertex[i]] = static_cast<int32_t>(i);
    }
    if (i == count - 1) starts[vertex[i] + 1] = static_cast<int32_t>(count);
  }
}

// The vertices before and after each along each axis, [axes, most, 2]; -1 where there is none.
template <int D>
__global__ void find_neighbours(
    const Summary<D>* summary, const int64_t* numbers, const int32_t* last_vertex, int64_t most, int32_t* neighbours) {
  const int32_t vertices = *last_vertex + 1;
  FSR_EACH(i, (D + 1) * static_cast<int64_t>(vertices)) {
    const int64_t axis = i / vertices, vertex = i % vertices;
    for (int side = 0; side < 2; ++side) {
      const int64_t step = summary->numbering.step[axis];
      const int64_t wanted = numbers[vertex] + (side ? step : -step);
      int32_t low = 0, high = vertices;  // the first that is not below `wanted`
      while (low < high) {
        const int32_t middle = low + (high - low) / 2;
        if (numbers[middle] < wanted) {
          low = middle + 1;
        } else {
          high = middle;
        }
      }
      const bool found = summary->valid && low < vertices && numbers[low] == wanted;
      neighbours[(axis * most + vertex) * 2 + side] = found ? low : -1;
    }
  }
}

// Channels `first` to `first + group` of values [sets, channels, points], times a factor a point, as rows [points, group].
// `values` null means ones, `norm` null a factor of 1.
__global__ void make_rows(
    const float* values,
    const float* norm,
    int64_t all_points,
    int64_t points,
    int64_t channels,
    int64_t first,
    int64_t group,
    float* rows) {
  FSR_EACH(i, all_points * group) {
    const int64_t pixel = i % points, channel = i / points % group, set = i / points / group;
    const float value = values ? values[(set * channels + first + channel) * points + pixel] : 1.0f;
    rows[(set * points + pixel) * group + channel] = (norm ? norm[set * points + pixel] : 1.0f) * value;
  }
}

// One warp a vertex: its row of the table [vertices, group] is the sum of what its points give it.
template <int D>
__global__ void splat(
    const float* rows,
    int64_t group,
    const int32_t* order,
    const float* weights,
    const int32_t* starts,
    const Summary<D>* summary,
    const int32_t* last_vertex,
    float* table) {
  const int64_t warps = static_cast<int64_t>(gridDim.x) * (blockDim.x / 32), lane = threadIdx.x % 32;
  if (!summary->valid || lane >= group) return;
  for (int64_t vertex = (blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x) / 32; vertex <= *last_vertex;
       vertex += warps) {
    float sum = 0;
    for (int32_t i = starts[vertex]; i < starts[vertex + 1]; ++i) {
      const int64_t corner = order[i];
      sum += weights[corner] * rows[corner / (D + 1) * group + lane];
    }
    table[vertex * group + lane] = sum;
  }
}

__global__ void blur(const float* from, const int32_t* neighbours, const int32_t* last_vertex, int64_t group, float* to) {
  FSR_EACH(i, (*last_vertex + 1) * group) {
    const int64_t vertex = i / group, channel = i % group;
    const int32_t before = neighbours[vertex * 2], after = neighbours[vertex * 2 + 1];
    const float behind = before < 0 ? 0.0f : from[before * group + channel];
    const float ahead = after < 0 ? 0.0f : from[after * group + channel];
    to[i] = 0.5f * behind + from[i] + 0.5f * ahead;
  }
}

// result = base + factor * norm * what the point's corners hold, for the channels of the group; NaN without a valid
// lattice. `base` null means zeros.
template <int D>
__global__ void slice(
    const float* table,
    const int32_t* corner_vertex,
    const float* weights,
    const Summary<D>* summary,
    const float* norm,
    float factor,
    int64_t all_points,
    int64_t points,
    int64_t channels,
    int64_t first,
    int64_t group,
    const float* base,
    float* result) {
  FSR_EACH(i, all_points * group) {
    const int64_t pixel = i % points, channel = i / points % group, set = i / points / group;
    const int64_t point = set * points + pixel, at = (set * channels + first + channel) * points + pixel;
    float sum = summary->valid ? 0 : std::numeric_limits<float>::quiet_NaN();
    for (int r = 0; r <= D && summary->valid; ++r) {
      const int64_t corner = point * (D + 1) + r;
      sum += weights[corner] * table[corner_vertex[corner] * group + channel];
    }
    result[at] = (base ? base[at] : 0.0f) + factor * (norm ? norm[point] : 1.0f) * sum;
  }
}

__global__ void invert_root(float* norm, int64_t count) {
  FSR_EACH(i, count) norm[i] = 1 / sqrtf(norm[i] + 1e-20f);
}

// Softmax over the channels of scores [sets, channels, points].
__global__ void softmax(const float* scores, int64_t all_points, int64_t points, int64_t channels, float* result) {
  FSR_EACH(i, all_points) {
    const int64_t first = i / points * channels * points + i % points;
    float largest = scores[first];
    for (int64_t c = 1; c < channels; ++c) largest = fmaxf(largest, scores[first + c * points]);
    float sum = 0;
    for (int64_t c = 0; c < channels; ++c) {
      const float value = expf(scores[first + c * points] - largest);
      result[first + c * points] = value;
      sum += value;
    }
    // fmaxf passes over NaN: it comes back through the sum.
    for (int64_t c = 0; c < channels; ++c) result[first + c * points] /= sum;
  }
}

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
