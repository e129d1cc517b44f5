// The kernels of the dense CRF's mean field on CUDA; mean_field_cuda.cu launches them.
#pragma once

#include "spatial_window.cuh"

namespace fsr {
namespace {

// A table of vertices' rows, and the weight of what is sliced from it; `table` null means 0.
template <int D>
struct Message {
  Tables<D> tables;
  const float4* table;
  float weight;
};

// The block's patch. The images of a batch take turns, for the windows of a patch have the same weights in each.
struct OwnPatch {
  int32_t of_image, image, number;
  __device__ explicit OwnPatch(const Patches& patches) {
    const int32_t images = static_cast<int32_t>(gridDim.x) / patches.count();
    of_image = static_cast<int32_t>(blockIdx.x) / images;
    image = static_cast<int32_t>(blockIdx.x) % images;
    number = image * patches.count() + of_image;
  }
};

// Windows, and the marginals that they are summed over; `weights` null means 0.
struct WindowMessage {
  Patches patches;
  const float* weights;
  const float4* marginals;
};

// Puts the sums of the windows of a patch into the tile, as rows of `count` quads, those from `first` on.
__device__ inline void window_rows(
    const WindowMessage& message, const OwnPatch& patch, int first, int count, int quads, float4* tile) {
  const int64_t points = static_cast<int64_t>(message.patches.count()) * kThreads;
  load_around(message.patches, patch.of_image, message.marginals + patch.image * points * quads + first, quads, count, tile);
  __syncthreads();
  float4 sums[kTall][kWide];
  const WindowShare share;
  sum_windows(share, message.weights + static_cast<int64_t>(patch.of_image) * kTaps * kThreads, tile, count, sums);
  __syncthreads();
  FSR_UNROLL
  for (int row = 0; row < kTall; ++row) {
    FSR_UNROLL
    for (int q = 0; q < kWide; ++q) {
      if (share.quad + q < count) tile[share.place(row) * tile_row(count) + share.quad + q] = sums[row][q];
    }
  }
  __syncthreads();
}

// scores = unary + messages of the windows, as rows; a block a patch and kWindowQuads quads of it.
__global__ void __launch_bounds__(kThreads, 4) add_windows(
    WindowMessage message, const float4* unary, int quads, float4* scores) {
  __shared__ float4 tile[kAroundQuads];
  const int first = blockIdx.y * kWindowQuads, count = min(kWindowQuads, quads - first);
  const OwnPatch patch(message.patches);
  window_rows(message, patch, first, count, quads, tile);
  const int64_t start = static_cast<int64_t>(patch.number) * kThreads * quads + first;
  each_quad(0, 1, kThreads, count, [&](int64_t place, int quad) {
    const int64_t at = start + place * quads + quad;
    float4 score = unary[at];
    add(score, 1, tile[place * tile_row(count) + quad]);
    scores[at] = score;
  });
}

// One step of the mean field, a block a patch: marginals = softmax(scores + messages), as rows, and from them the sums of
// the patch's shares in the bilateral lattice; or, in the last step, as planes only. The scores are the unary ones, or those
// of add_windows. With windows there are at most kWindowQuads quads, so that the whole patch fits the tile.
template <bool kWindows>
__global__ void __launch_bounds__(kThreads, 4) mean_field_step(
    WindowMessage windows,
    Message<2> spatial,
    Message<5> bilateral,
    const float4* scores,
    int quads,
    float4* marginals,
    float4* sums,
    Planes planes,
    float* result) {
  constexpr int kQuads = kWindows ? kAroundQuads : kTileQuads;
  __shared__ float4 tile[kQuads];
  __shared__ float shares[kThreads];
  const int thread = threadIdx.x, most = tile_rows<kQuads>(quads), pitch = tile_row(quads);
  const OwnPatch patch(planes.patches);
  const int64_t start = static_cast<int64_t>(patch.number) * kThreads, rows = start * quads;
  const int64_t image_start = static_cast<int64_t>(patch.of_image) * kThreads;
  const float4* spatial_table = spatial.table ? spatial.table + patch.image * spatial.tables.most * quads : nullptr;
  const bool window = kWindows && windows.weights;
  if (window) window_rows(windows, patch, 0, quads, quads, tile);
  for (int first = 0; first < kThreads; first += most) {
    const int count = min(most, kThreads - first);
    // A thread takes two quads of a point, half a row apart.
    const int half = (quads + 1) / 2;
    each_quad(0, 1, count, half, [&](int64_t at, int quad) {
      const int64_t place = first + at;
      const bool two = quad + half < quads;
      const int both[2] = {quad, two ? quad + half : quad};
      float4 score[2], sliced[2];
      for (int q = 0; q < 2; ++q) {
        score[q] = scores[rows + place * quads + both[q]];
        if (window) add(score[q], 1, tile[at * pitch + both[q]]);
      }
      if (!kWindows && spatial_table) {
        slice(spatial.tables, image_start + place, spatial_table, quads, both, sliced);
        for (int q = 0; q < 2; ++q) add(score[q], spatial.weight, sliced[q]);
      }
      if (bilateral.table) {
        slice(bilateral.tables, start + place, bilateral.table, quads, both, sliced);
        for (int q = 0; q < 2; ++q) add(score[q], bilateral.weight, sliced[q]);
      }
      tile[at * pitch + both[0]] = score[0];
      if (two) tile[at * pitch + both[1]] = score[1];
    });
    __syncthreads();
    if (thread < count) {
      float4* entries = tile + thread * pitch;
      float largest = -std::numeric_limits<float>::infinity(), sum = 0;
      for (int q = 0; q < quads; ++q) {
        const float4 s = entries[q];
        largest = fmaxf(largest, fmaxf(fmaxf(s.x, s.y), fmaxf(s.z, s.w)));
      }
      for (int q = 0; q < quads; ++q) {
        float4& s = entries[q];
        s = {expf(s.x - largest), expf(s.y - largest), expf(s.z - largest), expf(s.w - largest)};
        sum += s.x + s.y + (s.z + s.w);
      }
      // fmaxf passes over NaN: the sum restores it.
      shares[thread] = 1 / sum;
    }
    __syncthreads();
    if (result) {
      each_entry(planes, patch.number, first, count, quads, [&](int entry, int64_t at, int64_t) {
        if (at >= 0) result[at] = reinterpret_cast<const float*>(tile)[entry] * shares[entry / (4 * pitch)];
      });
    } else {
      each_quad(0, 1, count, quads, [&](int64_t at, int quad) {
        float4& entry = tile[at * pitch + quad];
        float4 marginal{0, 0, 0, 0};
        add(marginal, shares[at], entry);
        entry = marginals[rows + (first + at) * quads + quad] = marginal;
      });
    }
    __syncthreads();
  }
  if (result) return;
  sum_patch(bilateral.tables, patch.number, quads, sums, [&](int place, int quad) {
    return kWindows ? tile[place * pitch + quad] : marginals[rows + place * quads + quad];
  });
}

}  // namespace
}  // namespace fsr
