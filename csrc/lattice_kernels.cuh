// The kernels of the permutohedral lattice on CUDA; `lattice_cuda.cu` launches them.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
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

// What the device computes from all points: their range, and the numbering of vertices that follows from it.
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
    // fmaxf passes over NaN: the sum restores it.
    for (int64_t c = 0; c < channels; ++c) result[first + c * points] /= sum;
  }
}

}  // namespace
}  // namespace fsr
