// The kernels that filter values with a lattice on CUDA; lattice_patches.cuh builds it, lattice_cuda.cuh launches them.
//
// A row is the channels of a point, a share or a vertex, in fours, padded with zeros: [points, quads]. Several images may
// be filtered with the lattice of one, as the spatial one is the same for all: then the grid's second dimension is the
// image, with its own points and its own table of `most` rows.
#pragma once

#include "lattice_patches.cuh"

namespace fsr {
namespace {

// A block's tile in shared memory: the rows of as many of its patch's points as fit, half of them with 21 channels: the
// cache of the tables' rows lies in the same memory. An odd number of quads apart, rows lie in different banks.
constexpr int kTileQuads = kThreads / 2 * 7;
FSR_INLINE int tile_row(int quads) { return quads | 1; }
template <int kQuads = kTileQuads>
FSR_INLINE int tile_rows(int quads) {
  return kQuads / tile_row(quads) < kThreads ? kQuads / tile_row(quads) : kThreads;
}

// Where a table for the block's image starts.
template <int D, class Quad>
__device__ Quad* of_image(Quad* tables, const Tables<D>& lattice, int quads) {
  return tables + blockIdx.y * lattice.most * quads;
}

__device__ inline void add(float4& sum, float weight, const float4& row) {
  sum.x = __fmaf_rn(weight, row.x, sum.x);
  sum.y = __fmaf_rn(weight, row.y, sum.y);
  sum.z = __fmaf_rn(weight, row.z, sum.z);
  sum.w = __fmaf_rn(weight, row.w, sum.w);
}

// The sum of `count` terms, four at a time: a thread waits for its loads, and these go together.
template <class TermAt, class RowAt>
__device__ float4 sum_rows(int count, const TermAt& term_at, const RowAt& row_at) {
  float4 sum{0, 0, 0, 0};
  for (int i = 0; i < count; i += 4) {
    Term terms[4];
    float4 rows[4];
    FSR_UNROLL
    for (int k = 0; k < 4; ++k) {
      terms[k] = term_at(min(i + k, count - 1));
      if (i + k >= count) terms[k].weight = 0;
    }
    FSR_UNROLL
    for (int k = 0; k < 4; ++k) rows[k] = row_at(terms[k].index);
    FSR_UNROLL
    for (int k = 0; k < 4; ++k) add(sum, terms[k].weight, rows[k]);
  }
  return sum;
}

// work(row, quad) for `count` rows, shared out to the threads of blocks numbered `block` of `blocks`.
template <class Work>
__device__ void each_quad(unsigned block, unsigned blocks, int64_t count, int quads, const Work& work) {
  const unsigned first = block * kThreads + threadIdx.x, step = blocks * kThreads;
  int64_t row = first / quads;
  int quad = first % quads;
  const int rows_ahead = step / quads, quads_ahead = step % quads;
  while (row < count) {
    work(row, quad);
    row += rows_ahead;
    quad += quads_ahead;
    if (quad < quads) continue;
    quad -= quads;
    ++row;
  }
}

// What the patch's points give each of its shares; row_at(place, quad) is a point's. A thread sums kPart quads of a share:
// several where rows are near, as finding a share's corners costs as much as summing a quad.
template <int kPart, int D, class RowAt>
__device__ void sum_patch(const Tables<D>& tables, int32_t patch, int quads, float4* sums, const RowAt& row_at) {
  const int2 mine = tables.patch_shares[patch];
  const Term* corners = tables.corners + static_cast<int64_t>(patch) * kCorners<D>;
  const int parts = (quads + kPart - 1) / kPart;
  each_quad(0, 1, mine.y, parts, [&](int64_t i, int part) {
    const int64_t share = mine.x + i;
    const int2 range = tables.shares[share];
    int quad[kPart];
    float4 sum[kPart];
    FSR_UNROLL
    for (int q = 0; q < kPart; ++q) {
      quad[q] = min(part + q * parts, quads - 1);
      sum[q] = {0, 0, 0, 0};
    }
    for (int at = range.x; at < range.y; at += 4) {
      int place[4];
      float weight[4];
      FSR_UNROLL
      for (int k = 0; k < 4; ++k) {
        const int member = tables.members[min(at + k, range.y - 1)];
        place[k] = member / (D + 1);
        weight[k] = corners[member].weight;
        if (at + k >= range.y) weight[k] = 0;
      }
      FSR_UNROLL
      for (int k = 0; k < 4; ++k) {
        FSR_UNROLL
        for (int q = 0; q < kPart; ++q) {
          add(sum[q], weight[k], row_at(place[k], quad[q]));
        }
      }
    }
    FSR_UNROLL
    for (int q = 0; q < kPart; ++q) {
      if (part + q * parts < quads) sums[share * quads + quad[q]] = sum[q];
    }
  });
}

// `rows` null means ones.
template <int D>
__global__ void sum_patches(Tables<D> tables, const float4* rows, int quads, float4* sums) {
  const int64_t patch = blockIdx.x + static_cast<int64_t>(blockIdx.y) * gridDim.x;
  float4* own_sums = of_image(sums, tables, quads);
  if (rows) {
    const float4* mine = rows + patch * kThreads * quads;
    sum_patch<1>(tables, blockIdx.x, quads, own_sums, [&](int place, int quad) { return mine[place * quads + quad]; });
  } else {
    sum_patch<1>(tables, blockIdx.x, quads, own_sums, [](int, int) { return float4{1, 1, 1, 1}; });
  }
}

// The rows of vertices from those of their shares.
template <int D>
__global__ void __launch_bounds__(kThreads, 6) join_shares(
    Tables<D> tables, const float4* all_sums, int quads, float4* all_tables) {
  const float4* sums = of_image(all_sums, tables, quads);
  float4* table = of_image(all_tables, tables, quads);
  each_quad(blockIdx.x, gridDim.x, tables.summary->vertices, quads, [&](int64_t vertex, int quad) {
    const int2 list = tables.vertex_shares[vertex];
    if (list.y > kFewShares) return;
    table[vertex * quads + quad] = sum_rows(
        list.y,
        [&](int i) { return Term{tables.sources[list.x + i], 1}; },
        [&](int64_t share) { return sums[share * quads + quad]; });
  });
  // A block for each long list: 8 quads of a row at a time, 32 threads each.
  __shared__ float4 parts[kThreads];
  constexpr int kQuads = 8, kLanes = kThreads / kQuads;
  for (int i = blockIdx.x; i < tables.summary->long_vertices; i += gridDim.x) {
    const int64_t vertex = tables.long_vertices[i];
    const int2 list = tables.vertex_shares[vertex];
    for (int first = 0; first < quads; first += kQuads) {
      const int quad = first + threadIdx.x % kQuads;
      float4 sum{0, 0, 0, 0};
      for (int j = threadIdx.x / kQuads; j < list.y && quad < quads; j += kLanes) {
        add(sum, 1, sums[static_cast<int64_t>(tables.sources[list.x + j]) * quads + quad]);
      }
      parts[threadIdx.x] = sum;
      __syncthreads();
      if (threadIdx.x < kQuads && quad < quads) {
        for (int lane = 1; lane < kLanes; ++lane) add(sum, 1, parts[lane * kQuads + threadIdx.x]);
        table[vertex * quads + quad] = sum;
      }
      __syncthreads();
    }
  }
}

// [1/2 1 1/2] along an axis and along the next, where there is one: half as many passes through the table as axes.
template <int D>
__global__ void __launch_bounds__(kThreads, 4) blur(
    Tables<D> tables, int axis, const float4* all_from, int quads, float4* all_to) {
  const float4* from = of_image(all_from, tables, quads);
  float4* to = of_image(all_to, tables, quads);
  const int2* first = tables.neighbours + axis * tables.most;
  const int2* second = axis < D ? first + tables.most : nullptr;
  each_quad(blockIdx.x, gridDim.x, tables.summary->vertices, quads, [&](int64_t vertex, int quad) {
    const int2 none{-1, -1}, beside = second ? second[vertex] : none;
    const int32_t lines[3] = {static_cast<int32_t>(vertex), beside.x, beside.y};
    int2 around[3];
    FSR_UNROLL
    for (int i = 0; i < 3; ++i) around[i] = lines[i] >= 0 ? first[lines[i]] : none;
    float4 rows[3][3];
    FSR_UNROLL
    for (int i = 0; i < 3; ++i) {
      const int32_t line[3] = {lines[i], around[i].x, around[i].y};
      FSR_UNROLL
      for (int k = 0; k < 3; ++k) {
        rows[i][k] = {0, 0, 0, 0};
        if (line[k] >= 0) rows[i][k] = from[static_cast<int64_t>(line[k]) * quads + quad];
      }
    }
    FSR_UNROLL
    for (auto& row : rows) {
      add(row[0], 0.5f, row[1]);
      add(row[0], 0.5f, row[2]);
    }
    add(rows[0][0], 0.5f, rows[1][0]);
    add(rows[0][0], 0.5f, rows[2][0]);
    to[vertex * quads + quad] = rows[0][0];
  });
}

// What the corners of a point hold in some quads: finding them costs as much as summing one.
template <int D, int kCount>
__device__ void slice(
    const Tables<D>& tables, int64_t point, const float4* table, int quads, const int (&quad)[kCount], float4 (&sums)[kCount]) {
  const float4* row[D + 1];
  float weight[D + 1];
  FSR_UNROLL
  for (int r = 0; r <= D; ++r) {
    const Term corner = tables.corners[point * (D + 1) + r];
    row[r] = table + static_cast<int64_t>(corner.index) * quads;
    weight[r] = corner.weight;
  }
  FSR_UNROLL
  for (int q = 0; q < kCount; ++q) {
    float4 rows[D + 1];
    FSR_UNROLL
    for (int r = 0; r <= D; ++r) rows[r] = row[r][quad[q]];
    sums[q] = {0, 0, 0, 0};
    FSR_UNROLL
    for (int r = 0; r <= D; ++r) add(sums[q], weight[r], rows[r]);
  }
}

template <int D>
__device__ float4 slice(const Tables<D>& tables, int64_t point, const float4* table, int quads, int quad) {
  float4 sum[1];
  slice(tables, point, table, quads, {quad}, sum);
  return sum[0];
}

// Multiplies each point's weights by n = (K 1 + 1e-20)^-1/2: from now on the lattice filters with n K n. In the table are
// blurred ones.
template <int D>
__global__ void normalise(Tables<D> tables, const float4* table) {
  const int64_t point = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const float norm = 1 / sqrtf(kSliceFactor<D> * slice(tables, point, table, 1, 0).x + 1e-20f);
  for (int r = 0; r <= D; ++r) tables.corners[point * (D + 1) + r].weight *= norm;
}

// Channels that lie in planes [images, channels, pixels], the first `used` of them.
struct Planes {
  int64_t channels, used;
  Patches patches;
};

// Between planes and rows the points of a patch go through a tile, because planes are contiguous along pixels and rows along
// channels: work(entry of the tile, entry of the planes or -1 beyond an edge, channel)
// for `count` places of a patch from `first`.
template <class Work>
__device__ void each_entry(const Planes& planes, int32_t patch, int first, int count, int quads, const Work& work) {
  const int64_t plane = static_cast<int64_t>(planes.patches.height) * planes.patches.width;
  const int32_t image_patches = planes.patches.count();
  const int64_t start = patch / image_patches * planes.channels * plane;
  for (int i = threadIdx.x; i < count * quads * 4; i += kThreads) {
    const int place = i % count, channel = i / count;
    const int32_t pixel = planes.patches.pixel(patch % image_patches, first + place);
    const bool real = pixel >= 0 && channel < planes.used;
    work(place * tile_row(quads) * 4 + channel, real ? start + channel * plane + pixel : -1, channel);
  }
}

// `padding` is what the channels behind the last become.
__global__ void planes_to_rows(Planes planes, const float* from, float padding, int quads, float4* to) {
  __shared__ float4 tile[kTileQuads];
  const int most = tile_rows<>(quads);
  for (int first = 0; first < kThreads; first += most) {
    const int count = min(most, kThreads - first);
    each_entry(planes, blockIdx.x, first, count, quads, [&](int entry, int64_t at, int64_t channel) {
      reinterpret_cast<float*>(tile)[entry] = at >= 0 ? from[at] : channel < planes.used ? 0 : padding;
    });
    __syncthreads();
    float4* rows = to + (static_cast<int64_t>(blockIdx.x) * kThreads + first) * quads;
    each_quad(0, 1, count, quads, [&](int64_t place, int quad) {
      rows[place * quads + quad] = tile[place * tile_row(quads) + quad];
    });
    __syncthreads();
  }
}

// The last pass of a filter, to planes.
template <int D>
__global__ void __launch_bounds__(kThreads, 4) slice_patches(
    Tables<D> tables, const float4* table, int quads, Planes planes, float* to) {
  __shared__ float4 tile[kTileQuads];
  const int most = tile_rows<>(quads);
  for (int first = 0; first < kThreads; first += most) {
    const int count = min(most, kThreads - first);
    each_quad(0, 1, count, quads, [&](int64_t place, int quad) {
      const int64_t point = static_cast<int64_t>(blockIdx.x) * kThreads + first + place;
      float4& sum = tile[place * tile_row(quads) + quad];
      sum = {0, 0, 0, 0};
      add(sum, kSliceFactor<D>, slice(tables, point, table, quads, quad));
    });
    __syncthreads();
    each_entry(planes, blockIdx.x, first, count, quads, [&](int entry, int64_t at, int64_t) {
      if (at >= 0) to[at] = reinterpret_cast<const float*>(tile)[entry];
    });
    __syncthreads();
  }
}

}  // namespace
}  // namespace fsr
