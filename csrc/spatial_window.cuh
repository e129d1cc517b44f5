// The spatial term of the mean field at a small deviation: a weighted sum over the pixels around each pixel.
//
// Splat, blur and slice of a lattice of positions are one sparse matrix, the same for all images of a size. At a deviation
// of a pixel or less a pixel listens to about 30 others, none further than three pixels away; then summing them directly
// moves less memory than a table of vertices, of which there would be more than pixels.
#pragma once

#include <cuda_pipeline.h>

#include "lattice_kernels.cuh"

namespace fsr {
namespace {

constexpr double kWidestWindow = 1;  // the largest deviation whose window holds all that a pixel listens to
constexpr int kReach = 3;            // pixels
// The window's first and last row are narrower.
constexpr int kReachOfEnds = 1;
FSR_INLINE constexpr int reach_across(int y) { return y == -kReach || y == kReach ? kReachOfEnds : kReach; }
// Where a row of the window starts among its taps; behind the last row, the number of taps.
FSR_INLINE constexpr int first_tap(int y) {
  if (y == -kReach) return 0;
  const int before = 2 * kReachOfEnds + 1 + (y + kReach - 1) * (2 * kReach + 1);
  return y <= kReach ? before : before - 2 * (kReach - kReachOfEnds);
}
constexpr int kTaps = first_tap(kReach + 1);

// A thread sums for kTall pixels one below the other, as their windows share most pixels, and for kWide quads of each.
constexpr int kTall = 2, kWide = 3, kWindowQuads = kWide * kTall;

// Where the weights of a patch's pixels lie: those that one thread needs together are neighbours.
FSR_INLINE constexpr int weight_place(int place) {
  const int y = place / kSide, x = place % kSide;
  return (y / kTall * kSide + x) * kTall + y % kTall;
}

// To see all weights of a pixel, the lattice filters impulses: kPeriod pixels apart none meets another in a window, so that
// there are as many channels as places in a period, and each pixel is an impulse in its own.
constexpr int kPeriod = 2 * kReach + 1, kImpulseQuads = (kPeriod * kPeriod + 3) / 4;
FSR_INLINE int impulse(int y, int x) { return y % kPeriod * kPeriod + x % kPeriod; }

// The table of vertices that impulses make. The lattice is normalised.
__global__ void splat_impulses(Tables<2> tables, Patches patches, float4* table) {
  each_quad(blockIdx.x, gridDim.x, tables.summary->vertices, kImpulseQuads, [&](int64_t vertex, int quad) {
    const int2 list = tables.vertex_shares[vertex];
    float row[4] = {0, 0, 0, 0};
    for (int i = list.x; i < list.x + list.y; ++i) {
      const int2 range = tables.shares[tables.sources[i]];
      const int32_t patch = range.x / kCorners<2>;
      for (int c = range.x; c < range.y; ++c) {
        const int member = tables.members[c], place = member / 3;
        const int y = patch / patches.across() * kSide + place / kSide, x = patch % patches.across() * kSide + place % kSide;
        const float weight = tables.corners[patch * kCorners<2> + member].weight;
        FSR_UNROLL
        for (int k = 0; k < 4; ++k) {
          if (impulse(y, x) == 4 * quad + k) row[k] += weight;
        }
      }
    }
    table[vertex * kImpulseQuads + quad] = {row[0], row[1], row[2], row[3]};
  });
}

// The weights of the windows [patches, kTaps, kThreads] of an image's pixels, from the blurred table; a block a patch.
__global__ void find_windows(Tables<2> tables, Patches patches, float factor, const float4* table, float* all_weights) {
  __shared__ float4 tile[kTileQuads];
  const int patch = blockIdx.x, most = tile_rows(kImpulseQuads), pitch = tile_row(kImpulseQuads);
  float* weights = all_weights + static_cast<int64_t>(patch) * kTaps * kThreads;
  for (int first = 0; first < kThreads; first += most) {
    const int count = min(most, kThreads - first);
    each_quad(0, 1, count, kImpulseQuads, [&](int64_t place, int quad) {
      const int64_t point = static_cast<int64_t>(patch) * kThreads + first + place;
      tile[place * pitch + quad] = slice(tables, point, table, kImpulseQuads, quad);
    });
    __syncthreads();
    for (int i = threadIdx.x; i < count * kTaps; i += kThreads) {
      const int place = first + i % count, tap = i / count;
      int down = -kReach;
      while (tap >= first_tap(down + 1)) ++down;
      const int y = patch / patches.across() * kSide + place / kSide + down;
      const int x = patch % patches.across() * kSide + place % kSide + tap - first_tap(down) - reach_across(down);
      const bool real = y >= 0 && y < patches.height && x >= 0 && x < patches.width;
      const float* row = reinterpret_cast<const float*>(tile + i % count * pitch);
      weights[tap * kThreads + weight_place(place)] = real ? factor * row[impulse(y, x)] : 0;
    }
    __syncthreads();
  }
}

// A patch and what is around it in shared memory, quad after quad.
constexpr int kAround = kSide + 2 * kReach;
constexpr int kAroundPitch = kAround * kAround + 1;  // quads of a point lie in different banks
constexpr int kAroundQuads = kAroundPitch * kWindowQuads;

// Loads `count` quads of the points around a patch of an image; zeros beyond its edges.
__device__ inline void load_around(
    const Patches& patches, int32_t patch, const float4* image_rows, int quads, int count, float4* around) {
  const int across = patches.across(), patch_y = patch / across - 1, patch_x = patch % across - 1;
  each_quad(0, 1, kAround * kAround, count, [&](int64_t i, int quad) {
    // Counted from the patch above and to the left.
    const unsigned down = static_cast<unsigned>(i) / kAround + kSide - kReach;
    const unsigned right = static_cast<unsigned>(i) % kAround + kSide - kReach;
    const int y = patch_y * kSide + static_cast<int>(down), x = patch_x * kSide + static_cast<int>(right);
    const bool real = y >= 0 && y < patches.height && x >= 0 && x < patches.width;
    const int other = (patch_y + static_cast<int>(down / kSide)) * across + patch_x + static_cast<int>(right / kSide);
    const int point = other * kThreads + static_cast<int>(down % kSide * kSide + right % kSide);
    const float4* from = image_rows + (real ? static_cast<int64_t>(point) * quads + quad : 0);
    __pipeline_memcpy_async(around + quad * kAroundPitch + i, from, sizeof(*from), real ? 0 : sizeof(*from));
  });
  __pipeline_commit();
  __pipeline_wait_prior(0);
}

// The thread's points and quads: those at `place(row)` and from `quad` on.
struct WindowShare {
  int x, y, quad;
  __device__ WindowShare() {
    constexpr int kColumns = kThreads / kTall;
    const int column = threadIdx.x % kColumns;
    x = column % kSide;
    y = column / kSide * kTall;
    quad = threadIdx.x / kColumns * kWide;
  }
  __device__ int place(int row) const { return (y + row) * kSide + x; }
};

// The sums over the windows of the thread's points, for as many of its quads as there are.
__device__ inline void sum_windows(
    const WindowShare& share, const float* patch_weights, const float4* around, int count, float4 (&sums)[kTall][kWide]) {
  const float* weights = patch_weights + weight_place(share.place(0));
  const float4* corner = around + share.y * kAround + share.x + kReach;
  FSR_UNROLL
  for (int row = 0; row < kTall; ++row) {
    FSR_UNROLL
    for (int q = 0; q < kWide; ++q) sums[row][q] = {0, 0, 0, 0};
  }
  if (share.quad >= count) return;
  FSR_UNROLL
  for (int across = -kReach; across <= kReach; ++across) {
    const int reach = abs(across) > 1 ? kReach - 1 : kReach;
    float2 weight[2 * kReach + 1];  // of the upper and the lower point
    FSR_UNROLL
    for (int y = -reach; y <= reach; ++y) {
      const int tap = first_tap(y) + across + reach_across(y);
      weight[y + reach] = *reinterpret_cast<const float2*>(weights + tap * kThreads);
    }
    FSR_UNROLL
    for (int y = -reach; y <= reach + 1; ++y) {
      FSR_UNROLL
      for (int q = 0; q < kWide; ++q) {
        const int quad = min(share.quad + q, count - 1);
        const float4 other = corner[quad * kAroundPitch + (y + kReach) * kAround + across];
        if (y <= reach) add(sums[0][q], weight[y + reach].x, other);
        if (y > -reach) add(sums[1][q], weight[y + reach - 1].y, other);
      }
    }
  }
}

}  // namespace
}  // namespace fsr
