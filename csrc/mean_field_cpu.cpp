// Mean-field inference of a dense CRF with two Potts terms (Kraehenbuehl & Koltun 2011) on the CPU.
//
// The kernels are normalised symmetrically, n K n with n = (K 1)^-1/2. The spatial term is filtered band by band, each
// band of image rows on a lattice of its own that takes in the rows within reach: its table stays in the cache, and the
// result is the same as that of one lattice for the whole image. So one pass over the image does all but the blur of the
// bilateral term: read both terms' messages, normalise the classes, and hand the result to the bilateral lattice.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>

#include "lattice_cpu.h"

namespace fsr {
namespace {

// The spatial term reaches less than this many standard deviations: 8 of the lattice's last coordinate, of which a step
// of one standard deviation is 2. A point's corners lie within 2 of it, the blur adds 4, and corners take from within 2.
constexpr double kReach = 4;
// A band is at least this many points, so that its own vertices are worth a table, ...
constexpr int64_t kBandPoints = 8192;
// ... and this many reaches high, so that little is computed twice.
constexpr int64_t kBandReaches = 4;

// n = (K 1 + 1e-20)^-1/2 at all points of a lattice's only set.
template <int D>
Array<float> normalisation(const Lattice<D>& lattice, int64_t points) {
  Array<float> sums(lattice.slab_rows() * kLanes), table(lattice.vertices() * kLanes), norm(points);
  const auto for_tiles = [&](const auto& work) {
    at::parallel_for(0, lattice.slabs().size(), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const auto& slab = lattice.slabs()[i];
        for (int64_t first = 0; first < slab.count; first += kTile) {
          work(slab, first, static_cast<int>(std::min<int64_t>(kTile, slab.count - first)));
        }
      }
    });
  };
  for_tiles([&](const auto& slab, int64_t first, int count) {
    float ones[kTile * kLanes], factor[kTile];
    std::fill(ones, ones + kTile * kLanes, 1.0f);
    std::fill(factor, factor + kTile, 1.0f);
    float* slab_sums = sums.data() + slab.rows * kLanes;
    if (first == 0) std::fill(slab_sums, slab_sums + slab.row_count * kLanes, 0.0f);
    splat(ones, factor, count, lattice.corners(slab, first), slab_sums, kLanes);
  });
  lattice.blur_sums(sums.data(), table.data(), kLanes);
  for_tiles([&](const auto& slab, int64_t first, int count) {
    float factor[kTile], result[kTile * kLanes] = {};
    std::fill(factor, factor + kTile, kSliceFactor<D>);
    const Corners corners = lattice.corners(slab, first);
    slice(result, table.data(), lattice.vertices_of(slab), corners, factor, count, result, kLanes);
    for (int p = 0; p < count; ++p) norm[slab.first + first + p] = 1 / std::sqrt(result[p * kLanes] + 1e-20f);
  });
  return norm;
}

// Mean field on images of one size.
class MeanField {
 public:
  MeanField(int64_t channels, int64_t height, int64_t width, const Potts& potts)
      : channels_(channels),
        height_(height),
        width_(width),
        points_(height * width),
        row_(row_width(channels)),
        potts_(potts),
        spatial_norm_(points_),
        spatial_factor_(points_) {
    const double distance = std::ceil(kReach * potts.spatial_std) + 1;
    const auto reach = static_cast<int64_t>(std::min<double>(distance, height));
    band_height_ = std::min(std::max(kBandReaches * reach, kBandPoints / width), height);
    for (int64_t row = 0; row < height; row += band_height_) {
      const int64_t first = std::max<int64_t>(row - reach, 0);
      const int64_t end = std::min(row + band_height_ + reach, height);
      bands_.push_back({first, end - first, (row - first) * width, std::nullopt});
    }
    const auto sigma = static_cast<float>(potts.spatial_std);
    at::parallel_for(0, bands_.size(), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        Band& band = bands_[i];
        const int64_t points = band.rows * width;
        band.lattice.emplace(Pixels<2>{nullptr, 1, height, width, band.first_row, band.rows, {sigma, sigma}}, points);
        const Array<float> norm = normalisation(*band.lattice, points);
        const int64_t first = i * band_height_ * width, count = std::min(band_height_ * width, points_ - first);
        for (int64_t p = 0; p < count; ++p) {
          spatial_norm_[first + p] = norm[band.skipped + p];
          spatial_factor_[first + p] = norm[band.skipped + p] * kSliceFactor<2> * static_cast<float>(potts.spatial_weight);
        }
      }
    });
    int64_t largest = 0;
    for (const Band& band : bands_) largest = std::max(largest, band.lattice->vertices());
    for (int i = 0; i < at::get_num_threads(); ++i) spatial_tables_.push_back(rows(largest));
  }

  // image [3, height, width]; logits and marginals [channels, height, width].
  void infer(const float* image, const float* logits, int64_t iterations, float* marginals) {
    const auto xy = static_cast<float>(potts_.bilateral_xy_std), rgb = static_cast<float>(potts_.bilateral_rgb_std);
    const Lattice<5> lattice(
        Pixels<5>{image, 1, height_, width_, 0, height_, {xy, xy, rgb, rgb, rgb}}, band_height_ * width_);
    const Array<float> norm = normalisation(lattice, points_);
    Array<float> factor(points_);
    for (int64_t p = 0; p < points_; ++p) {
      factor[p] = norm[p] * kSliceFactor<5> * static_cast<float>(potts_.bilateral_weight);
    }
    const at::Tensor scores = rows(points_), sums = rows(lattice.slab_rows()), table = rows(lattice.vertices());
    // The marginals of this iteration and of the next: neighbouring bands need both.
    at::Tensor now = rows(points_), next = rows(points_);

    std::vector<char> all_finite(bands_.size(), true);  // each band's logits
    for (int64_t iteration = 0; iteration <= iterations; ++iteration) {
      if (iteration > 0) lattice.blur_sums(data(sums), data(table), row_);
      at::parallel_for(0, bands_.size(), 1, [&](int64_t begin, int64_t end) {
        const at::Tensor tile_rows = rows(kTile);
        float* tile = data(tile_rows);
        for (int64_t i = begin; i < end; ++i) {
          const Band& band = bands_[i];
          const auto& slab = lattice.slabs()[i];
          const auto& spatial_slab = band.lattice->slabs()[0];
          float* spatial = data(spatial_tables_[at::get_thread_num()]);
          if (iteration > 0) filter_spatially(band, data(now), spatial);
          float* slab_sums = data(sums) + slab.rows * row_;
          std::memset(slab_sums, 0, slab.row_count * row_ * sizeof(float));
          for (int64_t first = 0; first < slab.count; first += kTile) {
            const int count = std::min<int64_t>(kTile, slab.count - first);
            const int64_t point = slab.first + first;
            float* score = data(scores) + point * row_;
            const Corners corners = lattice.corners(slab, first);
            if (iteration == 0) {
              constexpr float never = -std::numeric_limits<float>::infinity();
              planes_to_rows(logits + point, points_, channels_, count, never, score, row_);
              std::memcpy(tile, score, count * row_ * sizeof(float));
              if (!finite(logits + point, points_, channels_, count)) all_finite[i] = false;
            } else {
              slice(score, data(table), lattice.vertices_of(slab), corners, factor.data() + point, count, tile, row_);
              slice(
                  tile,
                  spatial,
                  band.lattice->vertices_of(spatial_slab),
                  band.lattice->corners(spatial_slab, band.skipped + first),
                  spatial_factor_.data() + point,
                  count,
                  tile,
                  row_);
            }
            float share[kTile];
            exponentials(tile, count, share, row_);
            float* result = data(next) + point * row_;
            scale(tile, share, count, result, row_);
            if (iteration == iterations) {
              rows_to_planes(result, row_, channels_, count, marginals + point, points_);
            } else {
              splat(result, norm.data() + point, count, corners, slab_sums, row_);
            }
          }
        }
      });
      if (iteration == 0) {
        const bool all = std::all_of(all_finite.begin(), all_finite.end(), [](char good) { return good; });
        TORCH_CHECK_VALUE(all, "Expected finite logits, got some with NaN or infinity");
      }
      std::swap(now, next);
    }
  }

 private:
  // Image rows whose spatial messages are computed together; `skipped` points of the lattice lie before them.
  struct Band {
    int64_t first_row, rows, skipped;  // of the lattice, what is within reach included
    std::optional<Lattice<2>> lattice;
  };

  at::Tensor rows(int64_t count) const { return at::empty({count, row_}, at::kFloat); }
  static float* data(const at::Tensor& tensor) { return tensor.mutable_data_ptr<float>(); }

  void filter_spatially(const Band& band, const float* values, float* table) const {
    const auto& slab = band.lattice->slabs()[0];
    const float* rows = values + band.first_row * width_ * row_;
    const float* norm = spatial_norm_.data() + band.first_row * width_;
    std::memset(table, 0, slab.row_count * row_ * sizeof(float));
    for (int64_t first = 0; first < slab.count; first += kTile) {
      const int count = std::min<int64_t>(kTile, slab.count - first);
      splat(rows + first * row_, norm + first, count, band.lattice->corners(slab, first), table, row_);
    }
    band.lattice->blur_table(table, row_);
  }

  int64_t channels_, height_, width_, points_, row_;
  Potts potts_;
  int64_t band_height_;
  std::vector<Band> bands_;
  Array<float> spatial_norm_;    // n of the spatial kernel, [points]
  Array<float> spatial_factor_;  // weight * n * slice factor
  std::vector<at::Tensor> spatial_tables_;  // one a thread
};

}  // namespace

at::Tensor mean_field_cpu(
    const at::Tensor& any_image,
    const at::Tensor& any_logits,
    int64_t iterations,
    double spatial_weight,
    double spatial_std,
    double bilateral_weight,
    double bilateral_xy_std,
    double bilateral_rgb_std) {
  check_sizes(any_image, any_logits);
  const at::Tensor image = any_image.contiguous(), logits = any_logits.contiguous();
  const at::Tensor marginals = at::empty_like(logits);
  if (logits.numel() == 0) return marginals;
  const int64_t image_size = image[0].numel(), size = logits[0].numel();
  MeanField field(
      logits.size(1),
      logits.size(2),
      logits.size(3),
      {spatial_weight, spatial_std, bilateral_weight, bilateral_xy_std, bilateral_rgb_std});
  for (int64_t set = 0; set < logits.size(0); ++set) {
    field.infer(
        image.const_data_ptr<float>() + set * image_size,
        logits.const_data_ptr<float>() + set * size,
        iterations,
        marginals.mutable_data_ptr<float>() + set * size);
  }
  return marginals;
}

}  // namespace fsr
