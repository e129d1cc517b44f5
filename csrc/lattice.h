// The permutohedral lattice: what its CPU and CUDA kernels share.
//
// Adams, Baek & Davis, "Fast high-dimensional filtering using the permutohedral lattice" (2010), in the variant of
// Kraehenbuehl & Koltun's dense CRF (2011). fsr/ops/reference.py is the reference implementation in plain torch; the
// tests compare the kernels with it.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <cmath>
#include <cstdint>

#ifdef __CUDACC__
#define FSR_INLINE __host__ __device__ __forceinline__
#define FSR_UNROLL _Pragma("unroll")
#else
#define FSR_INLINE inline __attribute__((always_inline))
#define FSR_UNROLL _Pragma("GCC unroll 8")
#endif

namespace fsr {

// Beyond this many cells from the origin float32 no longer tells where in its cell a point lies.
constexpr float kFarthestCell = 1 << 20;

constexpr const char* kNotFinite = "Expected a finite image, got one with NaN or infinity";
constexpr const char* kTooManyCells =
    "The filter's standard deviations are too small: the points span more cells than 64 bits number";

// The Potts terms of a dense CRF; weights, and standard deviations in pixels and in the image's units.
struct Potts {
  double spatial_weight, spatial_std, bilateral_weight, bilateral_xy_std, bilateral_rgb_std;
};

// Along the lattice's axes the features are stretched by these factors.
template <int D>
struct Scale {
  float factor[D];
  Scale() {
    // Rounded to float on the way, as in pydensecrf: the last bit decides which vertices exist.
    const auto deviation = static_cast<float>(std::sqrt(2.0 / 3) * (D + 1));
    for (int i = 0; i < D; ++i) {
      factor[i] = static_cast<float>(1 / std::sqrt(static_cast<double>((i + 1) * (i + 2))) * deviation);
    }
  }
};

// 1 / (1 + 2^-d): what the blur adds to a constant is taken back when slicing.
template <int D>
constexpr float kSliceFactor = 1 / (1 + 1.0 / (1 << D));

// The simplex that a point lies in: its corner of remainder 0 divided by D + 1, the ranks of its coordinates, and the
// point's place inside it in cells.
//
// `Lanes` says how many points are computed at once: its Real and Int are numbers or SIMD vectors of them. No operation
// here may be reordered or fused: the rounding of the floats decides ties, and so which vertices exist.
template <int D, class Lanes>
FSR_INLINE void enclosing_simplex(
    const typename Lanes::Real (&feature)[D],
    const float (&scale)[D],
    typename Lanes::Real (&cell)[D + 1],
    typename Lanes::Int (&rank)[D + 1],
    typename Lanes::Real (&inside)[D + 1]) {
  using Real = typename Lanes::Real;
  using Int = typename Lanes::Int;
  constexpr float side = 1.0 / (D + 1);

  // The D+1 coordinates of the hyperplane.
  Real elevated[D + 1];
  Real total = feature[0] * 0.0f;
  FSR_UNROLL
  for (int i = D; i > 0; --i) {
    const Real scaled = feature[i - 1] * scale[i - 1];
    elevated[i] = total - scaled * static_cast<float>(i);
    total = total + scaled;
  }
  elevated[0] = total;

  Real sum = feature[0] * 0.0f;
  Real residual[D + 1];
  FSR_UNROLL
  for (int i = 0; i <= D; ++i) {
    cell[i] = Lanes::round(elevated[i] * side);
    residual[i] = elevated[i] - cell[i] * static_cast<float>(D + 1);
    sum = sum + cell[i];
  }

  // How many coordinates have a larger residual, the earlier of two equals counting as the larger.
  const Int shift = Lanes::to_int(sum);
  FSR_UNROLL
  for (int i = 0; i <= D; ++i) rank[i] = shift;
  FSR_UNROLL
  for (int i = 0; i < D; ++i) {
    FSR_UNROLL
    for (int j = i + 1; j <= D; ++j) {
      const Int less = Lanes::less(residual[i], residual[j]);
      rank[i] = rank[i] + less;
      rank[j] = rank[j] + 1 - less;
    }
  }
  // Rounding may leave the hyperplane; the coordinates that it moved furthest go back by one cell.
  FSR_UNROLL
  for (int i = 0; i <= D; ++i) {
    const Int wrap = Lanes::less(rank[i], 0) - Lanes::less(D, rank[i]);
    rank[i] = rank[i] + wrap * (D + 1);
    cell[i] = cell[i] + Lanes::to_real(wrap);
    inside[i] = (elevated[i] - cell[i] * static_cast<float>(D + 1)) * side;
  }
}

// From the corner of remainder r to that of r + 1 every coordinate grows by 1, except that the one of rank D - r shrinks
// by D: one step along that coordinate's axis. So falling rank orders both corners and weights.
template <int D>
FSR_INLINE void corner_weights(const float* inside, const int* rank, float* weight, int* falling) {
  FSR_UNROLL
  for (int i = 0; i <= D; ++i) falling[D - rank[i]] = i;
  weight[0] = inside[falling[0]] + (1 - inside[falling[D]]);
  FSR_UNROLL
  for (int r = 1; r <= D; ++r) weight[r] = inside[falling[r]] - inside[falling[r - 1]];
}

// Numbers of vertices, such that a step along a lattice axis always changes the number by the same amount.
//
// A vertex is D coordinates (the last follows from them), all with the same remainder r modulo D + 1: (D + 1) q_i + r.
// Its number is their scalar product with the place values of a mixed radix system for q. All place values but the
// first are multiples of D + 1, so the number's own remainder is r, and no two vertices share a number.
template <int D>
struct Numbering {
  int32_t lowest[D];
  int64_t place[D + 1];  // the last is that of the set
  int64_t step[D + 1];   // along each axis

  // `low` and `high` are the extreme cells of all points. False if 64 bits do not suffice.
  FSR_INLINE bool fit(const int32_t* low, const int32_t* high, int64_t sets) {
    place[0] = 1;
    int64_t axes = 0;
    constexpr int64_t limit = INT64_MAX / (2 * (D + 1));
    for (int i = 0; i < D; ++i) {
      lowest[i] = low[i] - 2;  // a corner is up to one cell lower, its neighbours one more
      const int64_t digits = static_cast<int64_t>(high[i]) + 2 - lowest[i];
      const int64_t base = (D + 1) * ((digits + D) / (D + 1));
      if (place[i] > limit / base) return false;
      place[i + 1] = place[i] * base;
      axes += place[i];
    }
    for (int i = 0; i < D; ++i) step[i] = axes - (D + 1) * place[i];
    step[D] = axes;
    return place[D] <= limit / (sets > 0 ? sets : 1);
  }

  FSR_INLINE int64_t origin(const int32_t* cell, int64_t set) const {
    int64_t number = set * place[D];
    for (int i = 0; i < D; ++i) number += (cell[i] - lowest[i]) * place[i];
    return (D + 1) * number;
  }
};

// Guards the memory of callers that bypass the Python wrappers, which check the same with better messages.
inline void check_inputs(const at::Tensor& image, const at::Tensor& values) {
  TORCH_CHECK_VALUE(
      image.dim() == 4 && values.dim() == 4 && image.size(0) == values.size(0) && image.size(1) == 3 &&
          image.size(2) == values.size(2) && image.size(3) == values.size(3),
      "Expected an image [B, 3, H, W] and values [B, C, H, W], got ",
      image.sizes(),
      " and ",
      values.sizes());
  TORCH_CHECK_VALUE(
      image.scalar_type() == at::kFloat && values.scalar_type() == at::kFloat,
      "Expected float32, got ",
      image.scalar_type(),
      " and ",
      values.scalar_type());
  TORCH_CHECK_VALUE(
      image.device() == values.device(), "Expected one device, got ", image.device(), " and ", values.device());
}

// The operators: float32 tensors on the kernel's device, see fsr/ops/bilateral.py and fsr/ops/potts.py.
// image [B, 3, H, W]; values and logits [B, C, H, W]. On the CPU they raise ValueError for an image that is not finite
// or spans too many cells; on CUDA, where looking would wait for the device, that image's result is NaN.
at::Tensor bilateral_filter_cpu(const at::Tensor& image, const at::Tensor& values, double sigma_rgb, double sigma_xy);
at::Tensor bilateral_filter_cuda(const at::Tensor& image, const at::Tensor& values, double sigma_rgb, double sigma_xy);
at::Tensor mean_field_cpu(
    const at::Tensor& image,
    const at::Tensor& logits,
    int64_t iterations,
    double spatial_weight,
    double spatial_std,
    double bilateral_weight,
    double bilateral_xy_std,
    double bilateral_rgb_std);
at::Tensor mean_field_cuda(
    const at::Tensor& image,
    const at::Tensor& logits,
    int64_t iterations,
    double spatial_weight,
    double spatial_std,
    double bilateral_weight,
    double bilateral_xy_std,
    double bilateral_rgb_std);

}  // namespace fsr
