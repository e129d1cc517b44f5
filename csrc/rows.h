// Arithmetic on rows of channels: the inner loops of the CPU kernels.
//
// A row is the channels of one point or vertex, padded with zeros to whole SIMD vectors; a table is many rows. On x86-64
// every loop is compiled for AVX2 and for plain SSE2, and chosen when the program runs, so that one build serves every
// node of a cluster. Sums keep their order and multiplications are never fused with additions (-ffp-contract=off): both
// variants give the same bits.
#pragma once

#include <cstdint>

#include "lattice.h"

#if defined(__x86_64__) && defined(__linux__)
#define FSR_FOR_EVERY_CPU __attribute__((target_clones("avx2", "default")))
#else
#define FSR_FOR_EVERY_CPU
#endif

namespace fsr {

constexpr int kLanes = 8;   // floats in a SIMD vector
constexpr int kTile = 64;   // points whose rows are held in the first-level cache

using Floats = float __attribute__((vector_size(4 * kLanes)));
using Ints = int32_t __attribute__((vector_size(4 * kLanes)));

inline int64_t row_width(int64_t channels) {
  return (channels + kLanes - 1) / kLanes * kLanes;
}

// For `enclosing_simplex`: eight points at once.
struct EightPoints {
  using Real = Floats;
  using Int = Ints;
  static FSR_INLINE Ints less(const Floats& a, const Floats& b) { return -(a < b); }
  static FSR_INLINE Ints less(const Ints& a, int b) { return -(a < b); }
  static FSR_INLINE Ints less(int a, const Ints& b) { return -(b > a); }
  static FSR_INLINE Ints to_int(const Floats& a) { return __builtin_convertvector(a, Ints); }
  static FSR_INLINE Floats to_real(const Ints& a) { return __builtin_convertvector(a, Floats); }
  // To the nearest whole number, half to even. Adding 1.5 * 2^23 leaves no room for a fraction; beyond 2^22 it would
  // take whole numbers too, but such a cell is refused anyway.
  static FSR_INLINE Floats round(const Floats& a) { return (a + 12582912.0f) - 12582912.0f; }
};

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

// Each row's exp(entry - largest entry), in place, and `share`, what they must be multiplied by to sum to 1. An entry 69
// below the largest becomes 0 (it is below 1e-30, and padding is minus infinity). Room for kTile rows, whatever `points`.
void exponentials(float* rows, int points, float* share, int64_t width);

// to = factor * from, a factor a point.
void scale(const float* from, const float* factor, int points, float* to, int64_t width);

// What `enclosing_simplex` finds for kTile points with features [D][kTile], each result [D + 1][kTile].
template <int D>
struct Simplices {
  int32_t cell[D + 1][kTile];
  int32_t rank[D + 1][kTile];
  float inside[D + 1][kTile];
};
// False if a point lies too far out for float32; then the results mean nothing.
bool locate(const float (&features)[2][kTile], const Scale<2>& scale, Simplices<2>& found);
bool locate(const float (&features)[5][kTile], const Scale<5>& scale, Simplices<5>& found);

}  // namespace fsr
