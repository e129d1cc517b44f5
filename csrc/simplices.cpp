#include "simplices.h"

#include <cstring>

// Fused operations round differently, so ties would be broken differently than on other machines. On x86-64 this file is
// compiled for processors without them; elsewhere setup.py forbids them.
#ifdef __FMA__
#error "Compile without -march: the kernels choose their instructions when they run"
#endif
#if defined(__x86_64__) && defined(__linux__)
#define FSR_UNFUSED __attribute__((target_clones("avx2", "default")))
#else
#define FSR_UNFUSED
#endif

namespace fsr {
namespace {

// For `enclosing_simplex`: eight points at once.
struct EightPoints {
  using Real = Floats;
  using Int = Ints;
  static FSR_INLINE Ints less(const Floats& a, const Floats& b) { return -(a < b); }
  static FSR_INLINE Ints less(const Ints& a, int b) { return -(a < b); }
  static FSR_INLINE Ints less(int a, const Ints& b) { return -(b > a); }
  // Points too far out are refused, but not before they went through here: what no Int holds, NaN too, becomes 0.
  static FSR_INLINE Ints to_int(const Floats& a) {
    return __builtin_convertvector((a < 1e9f) & (a > -1e9f) ? a : Floats{}, Ints);
  }
  static FSR_INLINE Floats to_real(const Ints& a) { return __builtin_convertvector(a, Floats); }
  // To the nearest whole number, half to even. Adding 1.5 * 2^23 leaves no room for a fraction; beyond 2^22 it would
  // take whole numbers too, but such a cell is refused anyway.
  static FSR_INLINE Floats round(const Floats& a) { return (a + 12582912.0f) - 12582912.0f; }
};

template <int D>
FSR_INLINE bool locate_all(const float (&features)[D][kTile], const Scale<D>& scale, Simplices<D>& found) {
  Ints near = Ints{} - 1;
  for (int p = 0; p < kTile; p += kLanes) {
    Floats feature[D], cell[D + 1], inside[D + 1];
    Ints rank[D + 1];
    for (int i = 0; i < D; ++i) std::memcpy(&feature[i], features[i] + p, sizeof(Floats));
    enclosing_simplex<D, EightPoints>(feature, scale.factor, cell, rank, inside);
    for (int i = 0; i <= D; ++i) {
      near &= (cell[i] <= kFarthestCell) & (cell[i] >= -kFarthestCell);  // false for NaN
      const Ints whole = EightPoints::to_int(cell[i]);
      std::memcpy(found.cell[i] + p, &whole, sizeof(Ints));
      std::memcpy(found.rank[i] + p, &rank[i], sizeof(Ints));
      std::memcpy(found.inside[i] + p, &inside[i], sizeof(Floats));
    }
  }
  bool all = true;
  for (int i = 0; i < kLanes; ++i) all &= near[i] != 0;
  return all;
}

}  // namespace

FSR_UNFUSED
static bool locate2(const float (&features)[2][kTile], const Scale<2>& scale, Simplices<2>& found) {
  return locate_all<2>(features, scale, found);
}

FSR_UNFUSED
static bool locate5(const float (&features)[5][kTile], const Scale<5>& scale, Simplices<5>& found) {
  return locate_all<5>(features, scale, found);
}

template <>
bool locate<2>(const float (&features)[2][kTile], const Scale<2>& scale, Simplices<2>& found) {
  return locate2(features, scale, found);
}

template <>
bool locate<5>(const float (&features)[5][kTile], const Scale<5>& scale, Simplices<5>& found) {
  return locate5(features, scale, found);
}

}  // namespace fsr
