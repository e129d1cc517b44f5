#include "rows.h"

#include <algorithm>
#include <cfloat>
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
  for_blocks(width, [&]<int Vectors>(int64_t offset) __attribute__((always_inline)) {
    for (int p = 0; p < points; ++p) {
      const float* row = rows + p * width + offset;
      Floats value[Vectors];
      for (int v = 0; v < Vectors; ++v) value[v] = factor[p] * load(row + v * kLanes);
      for (int c = 0; c < Count; ++c) {
        float* target = table + corners.corner[p * Count + c] * width + offset;
        const float weight = corners.weight[p * Count + c];
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
  for_blocks(width, [&]<int Vectors>(int64_t offset) __attribute__((always_inline)) {
    for (int p = 0; p < points; ++p) {
      Floats sum[Vectors] = {};
      for (int c = 0; c < Count; ++c) {
        const float* source = table + vertex[corners.corner[p * Count + c]] * width + offset;
        const float weight = corners.weight[p * Count + c];
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

// exp(x) for x in [-69, 0]; 0 below. 2^k times the series of exp around 0, |r| <= ln(2)/2: relative error 2e-7.
FSR_INLINE Floats exp_of_negative(const Floats& x) {
  const Floats magic = Floats{} + 12582912.0f;  // 1.5 * 2^23, see EightPoints::round
  const Floats small = x < -69.0f ? Floats{} - 69.0f : x;
  const Floats shifted = small * 1.44269504f + magic;
  const Floats k = shifted - magic;
  const Floats r = (small - k * 0.693359375f) + k * 2.12194440e-4f;
  Floats sum = r * (1.0f / 720) + 1.0f / 120;
  sum = sum * r + 1.0f / 24;
  sum = sum * r + 1.0f / 6;
  sum = sum * r + 0.5f;
  sum = sum * r + 1.0f;
  sum = sum * r + 1.0f;
  const Ints power = ((Ints)shifted - (Ints)magic + 127) << 23;  // the casts keep the bits
  return x < -69.0f ? Floats{} : sum * (Floats)power;
}

template <int D>
FSR_INLINE bool locate_all(const float (&features)[D][kTile], const Scale<D>& scale, Simplices<D>& found) {
  Ints near = Ints{} - 1;
  for (int p = 0; p < kTile; p += kLanes) {
    Floats feature[D], cell[D + 1], inside[D + 1];
    Ints rank[D + 1];
    for (int i = 0; i < D; ++i) feature[i] = load(features[i] + p);
    enclosing_simplex<D, EightPoints>(feature, scale.factor, cell, rank, inside);
    for (int i = 0; i <= D; ++i) {
      near &= (cell[i] <= kFarthestCell) & (cell[i] >= -kFarthestCell);  // false for NaN
      const Ints whole = __builtin_convertvector(cell[i], Ints);
      std::memcpy(found.cell[i] + p, &whole, sizeof(whole));
      std::memcpy(found.rank[i] + p, &rank[i], sizeof(rank[i]));
      store(found.inside[i] + p, inside[i]);
    }
  }
  bool all = true;
  for (int i = 0; i < kLanes; ++i) all &= near[i] != 0;
  return all;
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
  for_blocks(width, [&]<int Vectors>(int64_t offset) __attribute__((always_inline)) {
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
  for_blocks(width, [&]<int Vectors>(int64_t offset) __attribute__((always_inline)) {
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
        const Floats value = exp_of_negative(load(row + c) - largest[i]);
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

FSR_FOR_EVERY_CPU
bool locate(const float (&features)[2][kTile], const Scale<2>& scale, Simplices<2>& found) {
  return locate_all<2>(features, scale, found);
}

FSR_FOR_EVERY_CPU
bool locate(const float (&features)[5][kTile], const Scale<5>& scale, Simplices<5>& found) {
  return locate_all<5>(features, scale, found);
}

}  // namespace fsr
