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

// The block's patch. With windows the images of a batch take turns, for those of a patch have the same weights in each;
// without, one image follows the other, for the cache may hold the tables of one and not of all.
struct OwnPatch {
  int32_t of_image, image, number;
  __device__ OwnPatch(const Patches& patches, bool windows) {
    const int32_t block = static_cast<int32_t>(blockIdx.x), images = static_cast<int32_t>(gridDim.x) / patches.count();
    of_image = windows ? block / images : block % patches.count();
    image = windows ? block % images : block / patches.count();
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
  const OwnPatch patch(message.patches, true);
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
  constexpr int kPart = kWindows ? 2 : 1;  // quads that a thread slices at a time
  __shared__ float4 tile[kQuads];
  __shared__ float shares[kThreads];
  const int thread = threadIdx.x, most = tile_rows<kQuads>(quads), pitch = tile_row(quads);
  const OwnPatch patch(planes.patches, kWindows);
  const int64_t start = static_cast<int64_t>(patch.number) * kThreads, rows = start * quads;
  const int64_t image_start = static_cast<int64_t>(patch.of_image) * kThreads;
  const float4* spatial_table = spatial.table ? spatial.table + patch.image * spatial.tables.most * quads : nullptr;
  const bool window = kWindows && windows.weights;
  if (window) window_rows(windows, patch, 0, quads, quads, tile);
  for (int first = 0; first < kThreads; first += most) {
    const int count = min(most, kThreads - first);
    const int parts = (quads + kPart - 1) / kPart;
    each_quad(0, 1, count, parts, [&](int64_t at, int part) {
      const int64_t place = first + at;
      int quad[kPart];
      float4 score[kPart], sliced[kPart];
      FSR_UNROLL
      for (int q = 0; q < kPart; ++q) {
        quad[q] = part + q * parts < quads ? part + q * parts : part;
        score[q] = scores[rows + place * quads + quad[q]];
        if (window) add(score[q], 1, tile[at * pitch + quad[q]]);
      }
      if (!kWindows && spatial_table) {
        slice(spatial.tables, image_start + place, spatial_table, quads, quad, sliced);
        FSR_UNROLL
        for (int q = 0; q < kPart; ++q) add(score[q], spatial.weight, sliced[q]);
      }
      if (bilateral.table) {
        slice(bilateral.tables, start + place, bilateral.table, quads, quad, sliced);
        FSR_UNROLL
        for (int q = 0; q < kPart; ++q) add(score[q], bilateral.weight, sliced[q]);
      }
      FSR_UNROLL
      for (int q = 0; q < kPart; ++q) {
        if (part + q * parts < quads) tile[at * pitch + quad[q]] = score[q];
      }
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
  sum_patch<kWindows ? 3 : 1>(bilateral.tables, patch.number, quads, sums, [&](int place, int quad) {
    return kWindows ? tile[place * pitch + quad] : marginals[rows + place * quads + quad];
  });
}

}  // namespace
}  // namespace fsr
