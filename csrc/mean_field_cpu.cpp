// Mean-field inference of a dense CRF with two Potts terms (Kraehenbuehl & Koltun 2011) on the CPU.
//
// The kernels are normalised symmetrically, n K n with n = (K 1)^-1/2. The spatial term is filtered block by block, each
// block of pixels on a lattice of its own that takes in the pixels within reach: its table stays in the cache, and the
// result is the same as that of one lattice for the whole image. So one pass over the image does all but the blur of the
// bilateral term: read both terms' messages, normalise the classes, and hand the result to the bilateral lattice.
#include <ATen/Parallel.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>

#include "lattice_cpu.h"

namespace fsr {
namespace {

// The spatial term reaches this many standard deviations: 8 of the lattice's last coordinate, of which a step of one
// standard deviation down is 2 (to the side it is less). A point's corners lie within 2 of it, the blur adds 4, and
// corners take from within 2.
constexpr double kReach = 4;

// Side of a block: so large that little is computed twice, so small that an image has a block for every thread.
int64_t block_side(double spatial_std) {
  return static_cast<int64_t>(96 * std::clamp(spatial_std, 1.0, 3.0));
}

// n = (K 1 + 1e-20)^-1/2 at each point of a lattice, block by block.
template <int D>
Array<float> normalisation(const Lattice<D>& lattice) {
  const Block& last = lattice.blocks().back();
  const Array<float> sums(lattice.block_rows() * kLanes), table(lattice.vertices() * kLanes);
  Array<float> norm(last.points + last.height * last.width);
  const std::vector<float> ones(kTile * kLanes, 1), zeros(kTile * kLanes, 0), factor(kTile, kSliceFactor<D>);
  const auto for_blocks = [&](const auto& work) {
    at::parallel_for(0, lattice.blocks().size(), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) work(lattice.blocks()[i]);
    });
  };
  for_blocks([&](const Block& block) {
    float* block_sums = sums.data() + block.rows * kLanes;
    std::fill(block_sums, block_sums + block.row_count * kLanes, 0.0f);
    block.for_runs(0, [&](int64_t, int64_t point, int count) {
      splat(ones.data(), ones.data(), count, lattice.corners(block, point), block_sums, kLanes);
    });
  });
  lattice.blur_sums(sums.data(), table.data(), kLanes);
  for_blocks([&](const Block& block) {
    block.for_runs(0, [&](int64_t, int64_t point, int count) {
      float rows[kTile * kLanes];
      const Corners corners = lattice.corners(block, point);
      slice(zeros.data(), table.data(), lattice.vertices_of(block), corners, factor.data(), count, rows, kLanes);
      for (int p = 0; p < count; ++p) norm[block.points + point + p] = 1 / std::sqrt(rows[p * kLanes] + 1e-20f);
    });
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
        row_(row_width(channels)),
        potts_(potts),
        blocks_(cut(1, height, width, block_side(potts.spatial_std))),
        surroundings_(blocks_.size()),
        spatial_norm_(height * width),
        spatial_factor_(height * width) {
    const auto reach = static_cast<int64_t>(std::min(std::ceil(kReach * potts.spatial_std) + 1, 1e9));
    const auto sigma = static_cast<float>(potts.spatial_std);
    const Pixels<2> pixels{nullptr, height, width, {sigma, sigma}};
    at::parallel_for(0, blocks_.size(), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const Block& block = blocks_[i];
        const int64_t y = std::max<int64_t>(block.y - reach, 0), x = std::max<int64_t>(block.x - reach, 0);
        const int64_t below = std::min(block.y + block.height + reach, height);
        const int64_t right = std::min(block.x + block.width + reach, width);
        const Lattice<2>& lattice = surroundings_[i].emplace(pixels, std::vector<Block>{{0, y, x, below - y, right - x}});
        const Array<float> norm = normalisation(lattice);
        block.for_runs(width, [&](int64_t pixel, int64_t, int count) {
          for (int p = 0; p < count; ++p) {
            spatial_norm_[pixel + p] = norm[point_in(lattice, pixel) + p];
            spatial_factor_[pixel + p] =
                spatial_norm_[pixel + p] * kSliceFactor<2> * static_cast<float>(potts_.spatial_weight);
          }
        });
      }
    });
    int64_t largest = 0;
    for (const auto& lattice : surroundings_) largest = std::max(largest, lattice->vertices());
    for (int i = 0; i < at::get_num_threads(); ++i) spatial_tables_.emplace_back(largest * row_);
  }

  // image [3, height, width]; logits and marginals [channels, height, width].
  void infer(const float* image, const float* logits, int64_t iterations, float* marginals) const {
    const int64_t points = height_ * width_;
    const auto xy = static_cast<float>(potts_.bilateral_xy_std), rgb = static_cast<float>(potts_.bilateral_rgb_std);
    const Lattice<5> lattice(Pixels<5>{image, height_, width_, {xy, xy, rgb, rgb, rgb}}, blocks_);
    const Array<float> norm = normalisation(lattice), factor(points);
    for (int64_t p = 0; p < points; ++p) {
      factor[p] = norm[p] * kSliceFactor<5> * static_cast<float>(potts_.bilateral_weight);
    }
    const Array<float> scores(points * row_), sums(lattice.block_rows() * row_), table(lattice.vertices() * row_);
    // The marginals of this iteration and of the next: neighbouring blocks need both.
    Array<float> now(points * row_), next(points * row_);
    std::vector<char> finite_logits(blocks_.size(), true);

    for (int64_t iteration = 0; iteration <= iterations; ++iteration) {
      if (iteration > 0) lattice.blur_sums(sums.data(), table.data(), row_);
      at::parallel_for(0, blocks_.size(), 1, [&](int64_t begin, int64_t end) {
        const Array<float> rows(kTile * row_);
        float* tile = rows.data();
        float* spatial = spatial_tables_[at::get_thread_num()].data();
        for (int64_t i = begin; i < end; ++i) {
          const Block& block = lattice.blocks()[i];
          const Lattice<2>& surroundings = *surroundings_[i];
          if (iteration > 0) filter_spatially(surroundings, now.data(), spatial);
          float* block_sums = sums.data() + block.rows * row_;
          std::memset(block_sums, 0, block.row_count * row_ * sizeof(float));
          block.for_runs(width_, [&](int64_t pixel, int64_t point, int count) {
            float* score = scores.data() + pixel * row_;
            const Corners corners = lattice.corners(block, point);
            if (iteration == 0) {
              constexpr float never = -std::numeric_limits<float>::infinity();
              planes_to_rows(logits + pixel, points, channels_, count, never, score, row_);
              std::memcpy(tile, score, count * row_ * sizeof(float));
              if (!finite(logits + pixel, points, channels_, count)) finite_logits[i] = false;
            } else {
              const float* bilateral_factor = factor.data() + block.points + point;
              slice(score, table.data(), lattice.vertices_of(block), corners, bilateral_factor, count, tile, row_);
              const Block& around = surroundings.blocks()[0];
              const Corners near = surroundings.corners(around, point_in(surroundings, pixel));
              const float* spatial_factor = spatial_factor_.data() + pixel;
              slice(tile, spatial, surroundings.vertices_of(around), near, spatial_factor, count, tile, row_);
            }
            float share[kTile];
            float* result = next.data() + pixel * row_;
            exponentials(tile, count, share, row_);
            scale(tile, share, count, result, row_);
            if (iteration == iterations) {
              rows_to_planes(result, row_, channels_, count, marginals + pixel, points);
            } else {
              splat(result, norm.data() + block.points + point, count, corners, block_sums, row_);
            }
          });
        }
      });
      if (iteration == 0) {
        const bool all = std::all_of(finite_logits.begin(), finite_logits.end(), [](char good) { return good; });
        TORCH_CHECK_VALUE(all, "Expected finite logits, got some with NaN or infinity");
      }
      std::swap(now, next);
    }
  }

 private:
  // A pixel's point in the only block of a block's surroundings.
  int64_t point_in(const Lattice<2>& surroundings, int64_t pixel) const {
    const Block& around = surroundings.blocks()[0];
    return (pixel / width_ - around.y) * around.width + pixel % width_ - around.x;
  }

  void filter_spatially(const Lattice<2>& lattice, const float* values, float* table) const {
    const Block& block = lattice.blocks()[0];
    std::memset(table, 0, block.row_count * row_ * sizeof(float));
    block.for_runs(width_, [&](int64_t pixel, int64_t point, int count) {
      const Corners corners = lattice.corners(block, point);
      splat(values + pixel * row_, spatial_norm_.data() + pixel, count, corners, table, row_);
    });
    lattice.blur_table(table, row_);
  }

  int64_t channels_, height_, width_, row_;
  Potts potts_;
  std::vector<Block> blocks_;
  std::vector<std::optional<Lattice<2>>> surroundings_;  // of each block
  Array<float> spatial_norm_;                            // n of the spatial kernel, [points]
  Array<float> spatial_factor_;                          // weight * n * slice factor
  std::vector<Array<float>> spatial_tables_;             // one a thread
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
  check_inputs(any_image, any_logits);
  const at::Tensor image = any_image.contiguous(), logits = any_logits.contiguous();
  const at::Tensor marginals = at::empty_like(logits);
  if (logits.numel() == 0) return marginals;
  const int64_t image_size = image[0].numel(), size = logits[0].numel();
  const MeanField field(
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
