// The kernels that filter values with a lattice on CUDA; lattice_patches.cuh builds it, lattice_cuda.cu launches them.
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
__device__ inline int tile_rows(int quads) { return min(kThreads, kTileQuads / tile_row(quads)); }

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

// What the patch's points give each of its shares; `rows` are the patch's, null means ones.
template <int D>
__device__ void sum_patch(const Tables<D>& tables, int32_t patch, const float4* rows, int quads, float4* sums) {
  const int2 mine = tables.patch_shares[patch];
  const Term* corners = tables.corners + static_cast<int64_t>(patch) * kCorners<D>;
  each_quad(0, 1, mine.y, quads, [&](int64_t i, int quad) {
    const int64_t share = mine.x + i;
    const int2 range = tables.shares[share];
    const auto corner = [&](int at) {
      const int member = tables.members[range.x + at];
      return Term{member / (D + 1), corners[member].weight};
    };
    const auto row = [&](int point) { return rows ? rows[point * quads + quad] : float4{1, 1, 1, 1}; };
    sums[share * quads + quad] = sum_rows(range.y - range.x, corner, row);
  });
}

template <int D>
__global__ void sum_patches(Tables<D> tables, const float4* rows, int quads, float4* sums) {
  const int64_t patch = blockIdx.x + static_cast<int64_t>(blockIdx.y) * gridDim.x;
  const float4* mine = rows ? rows + patch * kThreads * quads : nullptr;
  sum_patch(tables, blockIdx.x, mine, quads, of_image(sums, tables, quads));
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

// [1/2 1 1/2] along an axis.
template <int D>
__global__ void __launch_bounds__(kThreads, 6) blur(
    Tables<D> tables, int axis, const float4* all_from, int quads, float4* all_to) {
  const float4* from = of_image(all_from, tables, quads);
  float4* to = of_image(all_to, tables, quads);
  const int2* neighbours = tables.neighbours + axis * tables.most;
  each_quad(blockIdx.x, gridDim.x, tables.summary->vertices, quads, [&](int64_t vertex, int quad) {
    const int2 around = neighbours[vertex];
    float4 sum = from[vertex * quads + quad];
    if (around.x >= 0) add(sum, 0.5f, from[static_cast<int64_t>(around.x) * quads + quad]);
    if (around.y >= 0) add(sum, 0.5f, from[static_cast<int64_t>(around.y) * quads + quad]);
    to[vertex * quads + quad] = sum;
  });
}

// A sparse matrix that makes vertices' rows from those of points.
struct Matrix {
  int2* rows;  // [vertices]; begin and end in `terms`
  Term* terms;
  int32_t* taken;  // how many terms have been
};

// The matrix of splat.
template <int D>
__global__ void start_matrix(Tables<D> tables, Matrix matrix) {
  FSR_ROUNDS(vertex, tables.summary->vertices) {
    const bool real = vertex < tables.summary->vertices;
    const int2 list = real ? tables.vertex_shares[vertex] : int2{0, 0};
    int corners = 0;
    for (int i = list.x; i < list.x + list.y; ++i) {
      const int2 range = tables.shares[tables.sources[i]];
      corners += range.y - range.x;
    }
    int32_t at = take(corners, matrix.taken);
    if (!real) continue;
    matrix.rows[vertex] = {at, at + corners};
    for (int i = list.x; i < list.x + list.y; ++i) {
      const int2 range = tables.shares[tables.sources[i]];
      const int32_t patch = range.x / kCorners<D>;
      for (int c = range.x; c < range.y; ++c) {
        const int32_t corner = patch * kCorners<D> + tables.members[c];
        matrix.terms[at++] = {corner / (D + 1), tables.corners[corner].weight};
      }
    }
  }
}

// The matrix with the blur of one more axis.
template <int D>
__global__ void blur_matrix(Tables<D> tables, int axis, Matrix from, Matrix to) {
  FSR_ROUNDS(vertex, tables.summary->vertices) {
    const bool real = vertex < tables.summary->vertices;
    const int2 around = real ? tables.neighbours[axis * tables.most + vertex] : int2{-1, -1};
    const int2 none{0, 0}, here = real ? from.rows[vertex] : none;
    const int2 before = around.x < 0 ? none : from.rows[around.x], after = around.y < 0 ? none : from.rows[around.y];
    const int32_t begin = take(here.y - here.x + before.y - before.x + after.y - after.x, to.taken);
    if (!real) continue;
    int32_t end = begin;
    for (int i = here.x; i < here.y; ++i) to.terms[end++] = from.terms[i];
    for (const int2& range : {before, after}) {
      for (int i = range.x; i < range.y; ++i) {
        const Term term = from.terms[i];
        int32_t same = begin;
        while (same < end && to.terms[same].index != term.index) ++same;
        if (same == end) to.terms[end++] = {term.index, 0};
        to.terms[same].weight += 0.5f * term.weight;
      }
    }
    to.rows[vertex] = {begin, end};
  }
}

// A table by a matrix, for images of `points`. A block takes vertices that were named one after the other, and so lie close
// to each other, of one image: together they need few rows, each many times. The images take turns, for they need the same
// terms.
template <int D>
__global__ void __launch_bounds__(kThreads, 5) multiply(
    Tables<D> tables, Matrix matrix, int images, int64_t points, const float4* rows, int quads, float4* table) {
  constexpr int64_t kTogether = 128;
  const int64_t vertices = tables.summary->vertices;
  for (int64_t i = blockIdx.x; i < (vertices + kTogether - 1) / kTogether * images; i += gridDim.x) {
    const int64_t first = i / images * kTogether, image = i % images;
    const float4* from = rows + image * points * quads;
    float4* to = table + (image * tables.most + first) * quads;
    each_quad(0, 1, min(kTogether, vertices - first), quads, [&](int64_t vertex, int quad) {
      const int2 range = matrix.rows[first + vertex];
      to[vertex * quads + quad] = sum_rows(
          range.y - range.x,
          [&](int k) { return matrix.terms[range.x + k]; },
          [&](int64_t point) { return from[point * quads + quad]; });
    });
  }
}

// What the corners of a point hold.
template <int D>
__device__ float4 slice(const Tables<D>& tables, int64_t point, const float4* table, int quads, int quad) {
  Term corners[D + 1];
  float4 rows[D + 1];
  FSR_UNROLL
  for (int r = 0; r <= D; ++r) corners[r] = tables.corners[point * (D + 1) + r];
  FSR_UNROLL
  for (int r = 0; r <= D; ++r) rows[r] = table[static_cast<int64_t>(corners[r].index) * quads + quad];
  float4 sum{0, 0, 0, 0};
  FSR_UNROLL
  for (int r = 0; r <= D; ++r) add(sum, corners[r].weight, rows[r]);
  return sum;
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
  const int most = tile_rows(quads);
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
  const int most = tile_rows(quads);
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

// A table of vertices' rows, and the weight of what is sliced from it; `table` null means 0.
template <int D>
struct Message {
  Tables<D> tables;
  const float4* table;
  float weight;
};

// One step of the mean field, a block a patch: marginals = softmax(unary + both messages), as rows, and from them the
// sums of the patch's shares in the bilateral lattice; or, in the last step, as planes only.
__global__ void __launch_bounds__(kThreads, 4) mean_field_step(
    Message<2> spatial,
    Message<5> bilateral,
    const float4* unary,
    int quads,
    float4* marginals,
    float4* sums,
    Planes planes,
    float* result) {
  __shared__ float4 tile[kTileQuads];
  __shared__ float shares[kThreads];
  const int thread = threadIdx.x, most = tile_rows(quads);
  const int32_t patch = blockIdx.x, image = patch / spatial.tables.image_patches;
  const int64_t start = static_cast<int64_t>(patch) * kThreads, rows = start * quads;
  const int64_t image_start = start - static_cast<int64_t>(image) * spatial.tables.image_patches * kThreads;
  const float4* spatial_table = spatial.table + image * spatial.tables.most * quads;
  for (int first = 0; first < kThreads; first += most) {
    const int count = min(most, kThreads - first);
    each_quad(0, 1, count, quads, [&](int64_t at, int quad) {
      const int place = first + static_cast<int>(at);
      float4 score = unary[rows + place * quads + quad];
      if (spatial.table) {
        add(score, spatial.weight, slice(spatial.tables, image_start + place, spatial_table, quads, quad));
        add(score, bilateral.weight, slice(bilateral.tables, start + place, bilateral.table, quads, quad));
      }
      tile[at * tile_row(quads) + quad] = score;
    });
    __syncthreads();
    if (thread < count) {
      float4* scores = tile + thread * tile_row(quads);
      float largest = -std::numeric_limits<float>::infinity(), sum = 0;
      for (int q = 0; q < quads; ++q) {
        const float4 s = scores[q];
        largest = fmaxf(largest, fmaxf(fmaxf(s.x, s.y), fmaxf(s.z, s.w)));
      }
      for (int q = 0; q < quads; ++q) {
        float4& s = scores[q];
        s = {expf(s.x - largest), expf(s.y - largest), expf(s.z - largest), expf(s.w - largest)};
        sum += s.x + s.y + (s.z + s.w);
      }
      // fmaxf passes over NaN: the sum restores it.
      shares[thread] = 1 / sum;
    }
    __syncthreads();
    if (result) {
      each_entry(planes, patch, first, count, quads, [&](int entry, int64_t at, int64_t) {
        if (at >= 0) result[at] = reinterpret_cast<const float*>(tile)[entry] * shares[entry / (4 * tile_row(quads))];
      });
    } else {
      each_quad(0, 1, count, quads, [&](int64_t at, int quad) {
        float4 marginal{0, 0, 0, 0};
        add(marginal, shares[at], tile[at * tile_row(quads) + quad]);
        marginals[rows + (first + at) * quads + quad] = marginal;
      });
    }
    __syncthreads();
  }
  if (!result) sum_patch(bilateral.tables, patch, marginals + rows, quads, sums);
}

}  // namespace
}  // namespace fsr
