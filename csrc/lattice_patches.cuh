// How the lattice of a batch of images is built on CUDA, without sorting it and without waiting for the device.
//
// Images are cut into patches of 16×16 pixels. Neighbouring pixels share most of their vertices, so a block first finds
// its patch's own vertices in shared memory. The patch's corners of one vertex are a *share* of that vertex, or several
// where they are many, so that no thread must sum more than a few. Then a hash table over all shares finds the vertices,
// and each vertex lists its shares.
//
// Atomics hand out names and places in memory, which differ from run to run; no sum depends on them, because each share
// lists its corners pixel after pixel, and each vertex its shares patch after patch.
#pragma once

#include <cuda_runtime.h>

#include <bit>
#include <cstdint>
#include <limits>

#include "lattice.h"

namespace fsr {
namespace {

constexpr int kSide = 16;
constexpr int kThreads = kSide * kSide;  // of every block: one a pixel of a patch
template <int D>
constexpr int kCorners = kThreads * (D + 1);  // of a patch
// Corners of a share at the most.
constexpr int kShare = 64;
// Vertices with more shares than these are summed by a block each.
constexpr int kFewShares = 32;

// for (i in [0, count)) over all threads of the grid.
#define FSR_EACH(i, count) \
  for (int64_t i = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x; i < (count); \
       i += static_cast<int64_t>(gridDim.x) * kThreads)

// The same, but all threads of a block take part in the last round, for they wait for each other.
#define FSR_ROUNDS(i, count) \
  for (int64_t i = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x; i - threadIdx.x < (count); \
       i += static_cast<int64_t>(gridDim.x) * kThreads)

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

// Where the points of an image lie: patch after patch, and row after row in a patch, also those beyond its edges.
struct Patches {
  int32_t height, width;

  FSR_INLINE int32_t across() const { return (width + kSide - 1) / kSide; }
  FSR_INLINE int32_t count() const { return across() * ((height + kSide - 1) / kSide); }
  // The pixel at a place of a patch; -1 beyond the edges.
  FSR_INLINE int32_t pixel(int32_t patch, int32_t place) const {
    const int32_t y = patch / across() * kSide + place / kSide, x = patch % across() * kSide + place % kSide;
    return y < height && x < width ? y * width + x : -1;
  }
};

template <int D>
struct Pixels {
  const float* image;  // [sets, 3, height, width]; not read if D = 2
  int64_t sets;
  Patches patches;  // of a set
  float sigma[D];

  FSR_INLINE int64_t points() const { return static_cast<int64_t>(patches.height) * patches.width; }

  __device__ void features(int64_t set, int32_t pixel, float (&feature)[D]) const {
    feature[0] = __fdiv_rn(static_cast<float>(pixel % patches.width), sigma[0]);
    feature[1] = __fdiv_rn(static_cast<float>(pixel / patches.width), sigma[1]);
    for (int i = 2; i < D; ++i) feature[i] = __fdiv_rn(image[(set * 3 + i - 2) * points() + pixel], sigma[i]);
  }
};

// What the device computes from all points: their range, the numbering of vertices that follows from it, and counts.
template <int D>
struct Summary {
  int32_t least[2 * D];  // cells, and below them negative cells
  int32_t far;           // not 0 if float32 does not tell where some point lies, or it is NaN or infinite
  int32_t valid;
  int32_t shares, vertices, listed_shares, long_vertices;
  Numbering<D> numbering;
};

// Hash tables of vertices' numbers have open addressing. An empty slot becomes the number's; others may try at once.
constexpr unsigned long long kEmpty = ~0ull;
enum class Slot { kOther, kFound, kNew };
__device__ inline Slot claim(unsigned long long* slot, unsigned long long number) {
  // Most numbers are there already, and reading is cheaper than trying to write.
  unsigned long long found = *static_cast<volatile unsigned long long*>(slot);
  if (found == kEmpty) found = atomicCAS(slot, kEmpty, number);
  return found == kEmpty ? Slot::kNew : found == number ? Slot::kFound : Slot::kOther;
}
__device__ inline unsigned long long hash(unsigned long long number) { return number * 0x9E3779B97F4A7C15u >> 32; }

// The vertices of all shares. Only as many slots are used as there may be vertices: the cache holds them.
struct VertexTable {
  unsigned long long* numbers;  // [slots]
  int32_t* vertices;            // [slots]
  const int32_t* shares;

  __device__ int64_t slots() const { return 2 * static_cast<int64_t>(*shares); }
  __device__ int64_t first_slot(unsigned long long number) const {
    return static_cast<int64_t>(hash(number) * slots() >> 32);
  }
  __device__ int64_t next_slot(int64_t slot) const { return slot + 1 < slots() ? slot + 1 : 0; }
  __device__ int32_t find(unsigned long long number) const {
    for (int64_t slot = first_slot(number);; slot = next_slot(slot)) {
      if (numbers[slot] == number) return vertices[slot];
      if (numbers[slot] == kEmpty) return -1;
    }
  }
};

__global__ void clear_table(VertexTable table) {
  FSR_EACH(slot, table.slots()) table.numbers[slot] = kEmpty;
}

// A term of a weighted sum of rows.
struct alignas(8) Term {
  int32_t index;
  float weight;
};

// The lattice, as kernels see it.
template <int D>
struct Tables {
  Summary<D>* summary;
  int64_t most;            // corners of all points, and so shares and vertices at the most
  int32_t image_patches;   // patches of an image
  Term* corners;           // [patches, kThreads, D + 1]; the vertices and weights of each point
  int2* patch_shares;      // [patches]; first share and number
  uint16_t* members;       // [patches, kCorners]; the patch's corners, share after share
  int2* shares;            // [shares]; begin and end in `members`
  int32_t* share_vertex;   // [shares]
  int32_t* sources;        // [shares], vertex after vertex
  int2* vertex_shares;     // [vertices]; first in `sources`, and number
  int32_t* long_vertices;  // those with more than kFewShares
  int2* neighbours;        // [D + 1, most]; the vertices before and after along each axis, -1 where there is none
};

// The sum of what the block's earlier threads have, and the sum of all.
__device__ inline int2 sum_before(int value) {
  __shared__ int sums[kThreads];
  const int thread = threadIdx.x;
  sums[thread] = value;
  for (int step = 1; step < kThreads; step *= 2) {
    __syncthreads();
    const int more = thread >= step ? sums[thread - step] : 0;
    __syncthreads();
    sums[thread] += more;
  }
  __syncthreads();
  const int2 result{sums[thread] - value, sums[kThreads - 1]};
  __syncthreads();
  return result;
}

// The first of as many places as the thread wants, counted by `taken`.
__device__ inline int32_t take(int wanted, int32_t* taken) {
  __shared__ int32_t first;
  const int2 sum = sum_before(wanted);
  if (threadIdx.x == 0) first = sum.y > 0 ? atomicAdd(taken, sum.y) : 0;
  __syncthreads();
  return first + sum.x;
}

template <int D>
__global__ void start_summary(Summary<D>* summary) {
  for (int i = 0; i < 2 * D; ++i) summary->least[i] = INT32_MAX;
  summary->far = summary->shares = summary->vertices = summary->listed_shares = summary->long_vertices = 0;
}

template <int D>
__global__ void find_range(Pixels<D> pixels, Scale<D> scale, Summary<D>* summary) {
  __shared__ int32_t least[2 * D][kThreads];
  const int thread = threadIdx.x;
  for (int j = 0; j < 2 * D; ++j) least[j][thread] = INT32_MAX;
  bool near = true;
  FSR_EACH(i, pixels.sets * pixels.points()) {
    float feature[D], cell[D + 1], inside[D + 1];
    int rank[D + 1];
    pixels.features(i / pixels.points(), static_cast<int32_t>(i % pixels.points()), feature);
    enclosing_simplex<D, OnePoint>(feature, scale.factor, cell, rank, inside);
    bool point_near = true;
    for (int j = 0; j <= D; ++j) point_near &= fabsf(cell[j]) <= kFarthestCell;  // false for NaN
    near &= point_near;
    if (!point_near) continue;
    for (int j = 0; j < D; ++j) {
      const int whole = static_cast<int>(cell[j]);
      least[j][thread] = min(least[j][thread], whole);
      least[D + j][thread] = min(least[D + j][thread], -whole);
    }
  }
  if (!near) atomicOr(&summary->far, 1);
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (thread >= half) continue;
    for (int j = 0; j < 2 * D; ++j) least[j][thread] = min(least[j][thread], least[j][thread + half]);
  }
  if (thread > 0) return;
  for (int j = 0; j < 2 * D; ++j) atomicMin(&summary->least[j], least[j][0]);
}

template <int D>
__global__ void number_vertices(Summary<D>* summary, int64_t sets) {
  int32_t high[D];
  for (int i = 0; i < D; ++i) high[i] = -summary->least[D + i];
  summary->valid = !summary->far && summary->numbering.fit(summary->least, high, sets);
}

// A block a patch: its corners, with a share in place of the vertex; its shares and their vertices' numbers. Without a valid
// lattice there are no shares, and all weights are NaN.
template <int D>
__global__ void cut_patches(Pixels<D> pixels, Scale<D> scale, Tables<D> tables, unsigned long long* share_numbers) {
  constexpr int kSlots = std::bit_ceil(static_cast<unsigned>(kCorners<D>)), kMine = kSlots / kThreads;
  __shared__ unsigned long long numbers[kSlots];
  __shared__ int sizes[kSlots];
  __shared__ int32_t shares[kSlots];
  __shared__ uint16_t starts[kSlots];
  __shared__ uint8_t pixels_of[kCorners<D>];
  Summary<D>& summary = *tables.summary;
  const int patch = blockIdx.x, thread = threadIdx.x;
  Term* corners = tables.corners + (static_cast<int64_t>(patch) * kThreads + thread) * (D + 1);
  if (!summary.valid) {
    if (thread == 0) tables.patch_shares[patch] = {0, 0};
    for (int r = 0; r <= D; ++r) corners[r] = {0, std::numeric_limits<float>::quiet_NaN()};
    return;
  }
  for (int slot = thread; slot < kSlots; slot += kThreads) {
    numbers[slot] = kEmpty;
    sizes[slot] = 0;
  }
  __syncthreads();

  const int32_t set = patch / tables.image_patches;
  const int32_t pixel = pixels.patches.pixel(patch % tables.image_patches, thread);
  float weight[D + 1];
  int slots[D + 1], places[D + 1];
  if (pixel >= 0) {
    float feature[D], cell[D + 1], inside[D + 1];
    int rank[D + 1], falling[D + 1];
    int32_t whole[D];
    pixels.features(set, pixel, feature);
    enclosing_simplex<D, OnePoint>(feature, scale.factor, cell, rank, inside);
    corner_weights<D>(inside, rank, weight, falling);
    for (int c = 0; c < D; ++c) whole[c] = static_cast<int32_t>(cell[c]);
    int64_t number = summary.numbering.origin(whole, set);
    FSR_UNROLL
    for (int r = 0; r <= D; ++r) {
      const auto wanted = static_cast<unsigned long long>(number);
      int slot = static_cast<int>(hash(wanted) % kSlots);
      while (claim(&numbers[slot], wanted) == Slot::kOther) slot = (slot + 1) % kSlots;
      slots[r] = slot;
      places[r] = atomicAdd(&sizes[slot], 1);
      number += summary.numbering.step[falling[r]];
    }
  }
  __syncthreads();

  // Shares in the upper half, corners in the lower.
  const auto counts = [&](int slot) { return (sizes[slot] + kShare - 1) / kShare * 0x10000 + sizes[slot]; };
  int mine = 0;
  for (int i = 0; i < kMine; ++i) mine += counts(thread * kMine + i);
  const int2 sum = sum_before(mine);
  __shared__ int32_t first;
  if (thread == 0) {
    first = atomicAdd(&summary.shares, sum.y >> 16);
    tables.patch_shares[patch] = {first, sum.y >> 16};
  }
  __syncthreads();
  int before = sum.x;
  for (int slot = thread * kMine; slot < (thread + 1) * kMine; before += counts(slot++)) {
    int32_t share = first + (before >> 16);
    const int start = before & 0xffff, begin = patch * kCorners<D> + start, end = begin + sizes[slot];
    shares[slot] = share;
    starts[slot] = static_cast<uint16_t>(start);
    for (int i = begin; i < end; i += kShare, ++share) {
      tables.shares[share] = {i, min(i + kShare, end)};
      share_numbers[share] = numbers[slot];
    }
  }
  __syncthreads();

  // A slot's corners came in any order; pixel after pixel now.
  if (pixel >= 0) {
    for (int r = 0; r <= D; ++r) pixels_of[starts[slots[r]] + places[r]] = static_cast<uint8_t>(thread);
  }
  __syncthreads();
  for (int r = 0; r <= D; ++r) {
    corners[r] = {first, 0};  // beyond the image's edge
    if (pixel < 0) continue;
    const int start = starts[slots[r]], end = start + sizes[slots[r]];
    int place = start;
    for (int i = start; i < end; ++i) place += pixels_of[i] < thread;
    tables.members[static_cast<int64_t>(patch) * kCorners<D> + place] = static_cast<uint16_t>(thread * (D + 1) + r);
    corners[r] = {shares[slots[r]], weight[r]};
  }
}

// Names each number among the shares' once. `share_vertex` becomes the slot of each share's vertex.
template <int D>
__global__ void find_vertices(
    Tables<D> tables, VertexTable table, const unsigned long long* share_numbers, unsigned long long* numbers) {
  FSR_ROUNDS(share, tables.summary->shares) {
    auto state = Slot::kOther;
    int64_t slot = 0;
    if (share < tables.summary->shares) {
      const unsigned long long number = share_numbers[share];
      slot = table.first_slot(number);
      while ((state = claim(&table.numbers[slot], number)) == Slot::kOther) slot = table.next_slot(slot);
      tables.share_vertex[share] = static_cast<int32_t>(slot);
    }
    const int32_t vertex = take(state == Slot::kNew, &tables.summary->vertices);
    if (state != Slot::kNew) continue;
    table.vertices[slot] = vertex;
    numbers[vertex] = share_numbers[share];
    tables.vertex_shares[vertex] = {0, 0};
  }
}

// Each share's vertex, and a place among the vertex's shares.
template <int D>
__global__ void count_shares(Tables<D> tables, VertexTable table, int32_t* places) {
  FSR_EACH(share, tables.summary->shares) {
    const int32_t vertex = table.vertices[tables.share_vertex[share]];
    tables.share_vertex[share] = vertex;
    places[share] = atomicAdd(&tables.vertex_shares[vertex].y, 1);
  }
}

template <int D>
__global__ void place_lists(Tables<D> tables) {
  FSR_ROUNDS(vertex, tables.summary->vertices) {
    const bool real = vertex < tables.summary->vertices;
    const int size = real ? tables.vertex_shares[vertex].y : 0;
    const int32_t begin = take(size, &tables.summary->listed_shares);
    if (real) tables.vertex_shares[vertex].x = begin;
    if (size > kFewShares) {
      tables.long_vertices[atomicAdd(&tables.summary->long_vertices, 1)] = static_cast<int32_t>(vertex);
    }
  }
}

// Where the corners of each vertex's shares begin, in any order of the shares.
template <int D>
__global__ void list_begins(Tables<D> tables, const int32_t* places, int32_t* begins) {
  FSR_EACH(share, tables.summary->shares) {
    const int2 list = tables.vertex_shares[tables.share_vertex[share]];
    begins[list.x + places[share]] = tables.shares[share].x;
  }
}

// Each vertex's shares in the order of their corners, patch after patch.
template <int D>
__global__ void list_shares(Tables<D> tables, const int32_t* begins) {
  FSR_EACH(share, tables.summary->shares) {
    const int2 list = tables.vertex_shares[tables.share_vertex[share]];
    const int32_t begin = tables.shares[share].x;
    int32_t place = list.x;
    for (int32_t i = list.x; i < list.x + list.y; ++i) place += begins[i] < begin;
    tables.sources[place] = static_cast<int32_t>(share);
  }
}

template <int D>
__global__ void name_corners(Tables<D> tables) {
  if (!tables.summary->valid) return;
  FSR_EACH(i, tables.most) tables.corners[i].index = tables.share_vertex[tables.corners[i].index];
}

template <int D>
__global__ void find_neighbours(Tables<D> tables, VertexTable table, const unsigned long long* numbers) {
  for (int axis = 0; axis <= D; ++axis) {
    const auto step = static_cast<unsigned long long>(tables.summary->numbering.step[axis]);
    FSR_EACH(vertex, tables.summary->vertices) {
      const unsigned long long number = numbers[vertex];
      tables.neighbours[axis * tables.most + vertex] = {table.find(number - step), table.find(number + step)};
    }
  }
}

}  // namespace
}  // namespace fsr
