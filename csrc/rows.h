// Arithmetic on rows of channels: the inner loops of the CPU kernels.
//
// A row is the channels of one point or vertex, padded to whole SIMD vectors; a table is many rows. On x86-64 every loop
// is compiled for AVX2 with FMA and for plain SSE2, and chosen when the program runs, so that one build serves every node
// of a cluster.
#pragma once

#include <cstdint>

#include "lattice.h"

#if !defined(__x86_64__) || !defined(__linux__)
#define FSR_FOR_EVERY_CPU
#elif defined(__clang__) || __GNUC__ >= 12
#define FSR_FOR_EVERY_CPU __attribute__((target_clones("arch=x86-64-v3", "default")))
#else
#define FSR_FOR_EVERY_CPU __attribute__((target_clones("avx2", "default")))  // GCC 11 knows no levels
#endif

namespace fsr {

constexpr int kLanes = 8;   // floats in a SIMD vector
constexpr int kTile = 64;   // points whose rows are held in the first-level cache

using Floats = float __attribute__((vector_size(4 * kLanes)));
using Ints = int32_t __attribute__((vector_size(4 * kLanes)));

inline int64_t row_width(int64_t channels) {
  return (channels + kLanes - 1) / kLanes * kLanes;
}

// One point's corners: `corner` and `weight` hold `corners` (3 or 6) entries a point. `width` is a multiple of kLanes.
struct Corners {
  int count;
  const int32_t* corner;
  const float* weight;
};

// table[corner] += weight * factor * row, point after point; a factor a point.
void splat(const float* rows, const float* factor, int points, const Corners& corners, float* table, int64_t width);

// to = rows + factor * sum of weight * table[vertex[corner]]; a factor a point. `to` may be `rows`.
void slice(
    const float* rows,
    const float* table,
    const int32_t* vertex,
    const Corners& corners,
    const float* factor,
    int points,
    float* to,
    int64_t width);

// [1/2 1 1/2] along chains of neighbouring vertices, in place. Chain i is vertices[starts[i]] to before starts[i + 1];
// behind the last chain there are kAhead more vertices, whichever.
constexpr int kAhead = 8;
void blur(
    const int32_t* starts, const int32_t* vertices, int64_t first_chain, int64_t end_chain, float* table, int64_t width);

// table[v] = sum of from[source] over sources[starts[v]] to before starts[v + 1].
void gather(
    const int32_t* starts,
    const int32_t* sources,
    int64_t first_vertex,
    int64_t end_vertex,
    const float* from,
    float* table,
    int64_t width);

// Channel planes, `stride` floats apart, to rows; the padding becomes `padding`. And back.
void planes_to_rows(
    const float* planes, int64_t stride, int64_t channels, int points, float padding, float* rows, int64_t width);
void rows_to_planes(const float* rows, int64_t width, int64_t channels, int points, float* planes, int64_t stride);

// Whether no entry of `count` planes, `stride` floats apart, is NaN or infinite.
bool finite(const float* planes, int64_t stride, int64_t count, int64_t points);

// Each row's exp(entry - largest entry), in place but at least 1e-30, and `share`, what they must be multiplied by to sum
// to 1. Padding must be minus infinity. Whole groups of kLanes points are computed: there must be room for them.
void exponentials(float* rows, int points, float* share, int64_t width);

// to = factor * from, a factor a point.
void scale(const float* from, const float* factor, int points, float* to, int64_t width);

}  // namespace fsr
