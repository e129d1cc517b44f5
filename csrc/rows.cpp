#include "rows.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>

namespace fsr {
namespace {

FSR_INLINE Floats load(const float* from) {
  Floats result;
  std::memcpy(&result, from, sizeof(result));
  return result;
}

FSR_INLINE void store(float* to, const Floats& value) {
  std::memcpy(to, &value, sizeof(value));
}

// Calls work<vectors>(offset) for blocks of a row small enough for the registers.
template <class Work>
FSR_INLINE void for_blocks(int64_t width, const Work& work) {
  int64_t offset = 0;
  for (; offset + 4 * kLanes <= width; offset += 4 * kLanes) work.template operator()<4>(offset);
  switch ((width - offset) / kLanes) {
    case 1: return work.template operator()<1>(offset);
    case 2: return work.template operator()<2>(offset);
    case 3: return work.template operator()<3>(offset);
  }
}

template <int Count>
FSR_INLINE void splat_corners(
    const float* rows, const float* factor, int points, const Corners& corners, float* table, int64_t width) {
  const int32_t* corner = corners.corner;  // in registers: a store to the table might change `corners`
  const float* weight_of = corners.weight;
  for_blocks(width, [=]<int Vectors>(int64_t offset) __attribute__((always_inline)) {
    for (int p = 0; p < points; ++p) {
      const float* row = rows + p * width + offset;
      Floats value[Vectors];
      for (int v = 0; v < Vectors; ++v) value[v] = factor[p] * load(row + v * kLanes);
      for (int c = 0; c < Count; ++c) {
        float* target = table + corner[p * Count + c] * width + offset;
        const float weight = weight_of[p * Count + c];
        for (int v = 0; v < Vectors; ++v) store(target + v * kLanes, load(target + v * kLanes) + weight * value[v]);
      }
    }
  });
}

template <int Count>
FSR_INLINE void slice_corners(
    const float* rows,
    const float* table,
    const int32_t* vertex,
    const Corners& corners,
    const float* factor,
    int points,
    float* to,
    int64_t width) {
  const int32_t* corner = corners.corner;
  const float* weight_of = corners.weight;
  for_blocks(width, [=]<int Vectors>(int64_t offset) __attribute__((always_inline)) {
    for (int p = 0; p < points; ++p) {
      Floats sum[Vectors] = {};
      for (int c = 0; c < Count; ++c) {
        const float* source = table + vertex[corner[p * Count + c]] * width + offset;
        const float weight = weight_of[p * Count + c];
        for (int v = 0; v < Vectors; ++v) sum[v] += weight * load(source + v * kLanes);
      }
      const int64_t at = p * width + offset;
      for (int v = 0; v < Vectors; ++v) store(to + at + v * kLanes, load(rows + at + v * kLanes) + factor[p] * sum[v]);
    }
  });
}

FSR_INLINE void transpose(Floats (&m)[kLanes]) {
  Floats t[kLanes], u[kLanes];
  // clang has no __builtin_shuffle, older GCCs no __builtin_shufflevector.
#ifdef __clang__
#define FSR_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define FSR_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, Ints{__VA_ARGS__})
#endif
  for (int i = 0; i < 8; i += 2) {
    t[i] = FSR_SHUFFLE(m[i], m[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
    t[i + 1] = FSR_SHUFFLE(m[i], m[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
  }
  for (int i = 0; i < 8; i += 4) {
    for (int j = 0; j < 2; ++j) {
      u[i + 2 * j] = FSR_SHUFFLE(t[i + j], t[i + j + 2], 0, 1, 8, 9, 4, 5, 12, 13);
      u[i + 2 * j + 1] = FSR_SHUFFLE(t[i + j], t[i + j + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    }
  }
  for (int i = 0; i < 4; ++i) {
    m[i] = FSR_SHUFFLE(u[i], u[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    m[i + 4] = FSR_SHUFFLE(u[i], u[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
#undef FSR_SHUFFLE
}

// 2^x for x <= 0, at least 2^-100: 2^k times a polynomial in what rounding leaves of x, whose coefficients were fitted
// on [-1/2, 1/2] to a relative error of 8e-8.
FSR_INLINE Floats power_of_two(const Floats& x) {
  // 1.5 * 2^23 leaves no room for a fraction, and the exponent's bias stands ready in the last bits.
  constexpr float magic = 12582912.0f + 127;
  const Floats large = x > -100.0f ? x : Floats{} - 100.0f;
  const Floats shifted = large + magic;
  const Floats f = large - (shifted - magic);
  Floats sum = f * 1.32764701e-3f + 9.67554132e-3f;
  sum = sum * f + 5.55071328e-2f;
  sum = sum * f + 2.40221197e-1f;
  sum = sum * f + 6.93146967e-1f;
  sum = sum * f + 1.00000007f;
  return sum * (Floats)((Ints)shifted << 23);  // the casts keep the bits
}

}  // namespace

FSR_FOR_EVERY_CPU
void splat(const float* rows, const float* factor, int points, const Corners& corners, float* table, int64_t width) {
  corners.count == 6 ? splat_corners<6>(rows, factor, points, corners, table, width)
                     : splat_corners<3>(rows, factor, points, corners, table, width);
}

FSR_FOR_EVERY_CPU
void slice(
    const float* rows,
    const float* table,
    const int32_t* vertex,
    const Corners& corners,
    const float* factor,
    int points,
    float* to,
    int64_t width) {
  corners.count == 6 ? slice_corners<6>(rows, table, vertex, corners, factor, points, to, width)
                     : slice_corners<3>(rows, table, vertex, corners, factor, points, to, width);
}

FSR_FOR_EVERY_CPU
void blur(
    const int32_t* starts, const int32_t* vertices, int64_t first_chain, int64_t end_chain, float* table, int64_t width) {
  for_blocks(width, [=]<int Vectors>(int64_t offset) __attribute__((always_inline)) {
    for (int64_t chain = first_chain; chain < end_chain; ++chain) {
      // Each row is read once: its neighbour behind is kept as it was, the one ahead becomes the next.
      Floats behind[Vectors] = {}, here[Vectors];
      float* row = table + vertices[starts[chain]] * width + offset;
      for (int v = 0; v < Vectors; ++v) here[v] = load(row + v * kLanes);
      for (int32_t i = starts[chain] + 1; i < starts[chain + 1]; ++i) {
        // The vertices of a chain lie far apart: the processor does not foresee where the next will be.
        const float* later = table + vertices[i + kAhead - 1] * width + offset;
        for (int v = 0; v < Vectors; v += 2) __builtin_prefetch(later + v * kLanes);
        float* next = table + vertices[i] * width + offset;
        for (int v = 0; v < Vectors; ++v) {
          const Floats ahead = load(next + v * kLanes);
          store(row + v * kLanes, 0.5f * behind[v] + here[v] + 0.5f * ahead);
          behind[v] = here[v];
          here[v] = ahead;
        }
        row = next;
      }
      for (int v = 0; v < Vectors; ++v) store(row + v * kLanes, 0.5f * behind[v] + here[v]);
    }
  });
}

FSR_FOR_EVERY_CPU
void gather(
    const int32_t* starts,
    const int32_t* sources,
    int64_t first_vertex,
    int64_t end_vertex,
    const float* from,
    float* table,
    int64_t width) {
  for_blocks(width, [=]<int Vectors>(int64_t offset) __attribute__((always_inline)) {
    for (int64_t vertex = first_vertex; vertex < end_vertex; ++vertex) {
      Floats sum[Vectors] = {};
      for (int32_t i = starts[vertex]; i < starts[vertex + 1]; ++i) {
        const float* row = from + sources[i] * width + offset;
        for (int v = 0; v < Vectors; ++v) sum[v] += load(row + v * kLanes);
      }
      for (int v = 0; v < Vectors; ++v) store(table + vertex * width + offset + v * kLanes, sum[v]);
    }
  });
}

FSR_FOR_EVERY_CPU
void planes_to_rows(
    const float* planes, int64_t stride, int64_t channels, int points, float padding, float* rows, int64_t width) {
  for (int64_t c = 0; c < width; c += kLanes) {
    const int64_t present = std::min<int64_t>(kLanes, channels - c);
    int p = 0;
    for (; p + kLanes <= points; p += kLanes) {
      Floats block[kLanes];
      for (int i = 0; i < kLanes; ++i) block[i] = i < present ? load(planes + (c + i) * stride + p) : Floats{} + padding;
      transpose(block);
      for (int i = 0; i < kLanes; ++i) store(rows + (p + i) * width + c, block[i]);
    }
    for (; p < points; ++p) {
      for (int i = 0; i < kLanes; ++i) rows[p * width + c + i] = i < present ? planes[(c + i) * stride + p] : padding;
    }
  }
}

FSR_FOR_EVERY_CPU
void rows_to_planes(const float* rows, int64_t width, int64_t channels, int points, float* planes, int64_t stride) {
  for (int64_t c = 0; c < channels; c += kLanes) {
    const int64_t present = std::min<int64_t>(kLanes, channels - c);
    int p = 0;
    for (; p + kLanes <= points; p += kLanes) {
      Floats block[kLanes];
      for (int i = 0; i < kLanes; ++i) block[i] = load(rows + (p + i) * width + c);
      transpose(block);
      for (int i = 0; i < present; ++i) store(planes + (c + i) * stride + p, block[i]);
    }
    for (; p < points; ++p) {
      for (int i = 0; i < present; ++i) planes[(c + i) * stride + p] = rows[p * width + c + i];
    }
  }
}

FSR_FOR_EVERY_CPU
bool finite(const float* planes, int64_t stride, int64_t count, int64_t points) {
  int bad = 0;
  for (int64_t c = 0; c < count; ++c) {
    for (int64_t p = 0; p < points; ++p) bad |= !(std::fabs(planes[c * stride + p]) <= FLT_MAX);
  }
  return !bad;
}

FSR_FOR_EVERY_CPU
void exponentials(float* rows, int points, float* share, int64_t width) {
  // Eight points at a time, so that maxima and sums over a vector's lanes are those of columns of a transposed block.
  for (int p = 0; p < points; p += kLanes) {
    Floats block[kLanes];
    for (int i = 0; i < kLanes; ++i) {
      const float* row = rows + (p + i) * width;
      block[i] = load(row);
      for (int64_t c = kLanes; c < width; c += kLanes) {
        const Floats value = load(row + c);
        block[i] = value > block[i] ? value : block[i];
      }
    }
    transpose(block);
    for (int i = 1; i < kLanes; ++i) block[0] = block[i] > block[0] ? block[i] : block[0];
    float largest[kLanes];
    store(largest, block[0]);
    for (int i = 0; i < kLanes; ++i) {
      float* row = rows + (p + i) * width;
      block[i] = Floats{};
      for (int64_t c = 0; c < width; c += kLanes) {
        const Floats value = power_of_two((load(row + c) - largest[i]) * 1.44269504f);  // 1 / ln(2)
        store(row + c, value);
        block[i] += value;
      }
    }
    transpose(block);
    for (int i = 1; i < kLanes; ++i) block[0] += block[i];
    store(share + p, 1 / block[0]);
  }
}

FSR_FOR_EVERY_CPU
void scale(const float* from, const float* factor, int points, float* to, int64_t width) {
  for (int p = 0; p < points; ++p) {
    for (int64_t c = 0; c < width; c += kLanes) store(to + p * width + c, factor[p] * load(from + p * width + c));
  }
}

}  // namespace fsr
