#include "lattice_cpu.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

namespace fsr {
namespace {

// Numbers of vertices to their indices; open addressing, at most half full.
class VertexTable {
 public:
  explicit VertexTable(int64_t expected) { resize(std::bit_ceil(static_cast<uint64_t>(std::max<int64_t>(expected, 8) * 2))); }

  int32_t find(int64_t number) const {
    for (uint64_t at = slot(number);; at = (at + 1) & mask_) {
      if (entries_[at].number == number || entries_[at].index < 0) return entries_[at].index;
    }
  }

  // The index of a number; one that is new gets the next index, and is appended to `numbers`.
  int32_t find_or_add(int64_t number, std::vector<int64_t>& numbers) {
    uint64_t at = slot(number);
    for (; entries_[at].index >= 0; at = (at + 1) & mask_) {
      if (entries_[at].number == number) return entries_[at].index;
    }
    const auto index = static_cast<int32_t>(numbers.size());
    entries_[at] = {number, index};
    numbers.push_back(number);
    if (2 * numbers.size() > entries_.size()) grow(numbers);
    return index;
  }

 private:
  struct Entry {
    int64_t number;
    int32_t index;
  };

  uint64_t slot(int64_t number) const { return static_cast<uint64_t>(number) * 0x9E3779B97F4A7C15u >> shift_; }

  void resize(uint64_t size) {
    entries_.assign(size, {-1, -1});
    mask_ = size - 1;
    shift_ = 64 - std::countr_zero(size);
  }

  void grow(const std::vector<int64_t>& numbers) {
    resize(2 * entries_.size());
    for (size_t i = 0; i < numbers.size(); ++i) {
      uint64_t at = slot(numbers[i]);
      while (entries_[at].index >= 0) at = (at + 1) & mask_;
      entries_[at] = {numbers[i], static_cast<int32_t>(i)};
    }
  }

  std::vector<Entry> entries_;
  uint64_t mask_ = 0;
  int shift_ = 0;
};

// Calls work(i) for i in [0, count) on all threads.
template <class Work>
void parallel(int64_t count, const Work& work, int64_t grain = 1) {
  at::parallel_for(0, count, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) work(i);
  });
}

}  // namespace

template <int D>
void Pixels<D>::features(int64_t set, int64_t first, int count, float (&features)[D][kTile]) const {
  int64_t x = first % width, y = first_row + first / width;
  for (int p = 0; p < count; ++p) {
    features[0][p] = static_cast<float>(x) / sigma[0];
    features[1][p] = static_cast<float>(y) / sigma[1];
    if (++x == width) x = 0, ++y;
  }
  for (int i = 2; i < D; ++i) {
    const float* plane = image + ((set * 3 + i - 2) * height + first_row) * width + first;
    for (int p = 0; p < count; ++p) features[i][p] = plane[p] / sigma[i];
  }
  for (int i = 0; i < D; ++i) std::fill(features[i] + count, features[i] + kTile, features[i][count - 1]);
}

template <int D>
bool Pixels<D>::finite(int64_t set, int64_t first, int64_t count) const {
  return D == 2 || fsr::finite(image + (set * 3 * height + first_row) * width + first, height * width, 3, count);
}

template <int D>
Lattice<D>::Lattice(const Pixels<D>& pixels, int64_t slab_points) : points_(pixels.count()) {
  for (int64_t set = 0; set < pixels.sets; ++set) {
    for (int64_t first = 0; first < points_; first += slab_points) {
      slabs_.push_back({set, first, std::min(slab_points, points_ - first), 0, 0});
    }
  }
  const Numbering<D> numbering = number_points(pixels);
  corner_ = Array<int32_t>(pixels.sets * points_ * (D + 1));
  weight_ = Array<float>(pixels.sets * points_ * (D + 1));
  std::vector<std::vector<int64_t>> numbers(slabs_.size());
  parallel(slabs_.size(), [&](int64_t slab) { find_corners(pixels, numbering, slab, numbers[slab]); });
  join_slabs(numbers, numbering);
}

template <int D>
Numbering<D> Lattice<D>::number_points(const Pixels<D>& pixels) {
  struct Range {
    bool finite = true, near = true;
    int32_t low[D], high[D];
  };
  std::vector<Range> ranges(slabs_.size());
  const Scale<D> scale;
  parallel(slabs_.size(), [&](int64_t index) {
    const Slab& slab = slabs_[index];
    Range& range = ranges[index];
    std::fill(range.low, range.low + D, std::numeric_limits<int32_t>::max());
    std::fill(range.high, range.high + D, std::numeric_limits<int32_t>::min());
    range.finite = pixels.finite(slab.set, slab.first, slab.count);
    float features[D][kTile];
    Simplices<D> found;
    for (int64_t first = 0; range.finite && range.near && first < slab.count; first += kTile) {
      const int count = std::min<int64_t>(kTile, slab.count - first);
      pixels.features(slab.set, slab.first + first, count, features);
      range.near = locate(features, scale, found);
      for (int i = 0; i < D; ++i) {
        for (int p = 0; p < kTile; ++p) {
          range.low[i] = std::min(range.low[i], found.cell[i][p]);
          range.high[i] = std::max(range.high[i], found.cell[i][p]);
        }
      }
    }
  });
  Range all = ranges[0];
  for (const Range& range : ranges) {
    all.finite &= range.finite;
    all.near &= range.near;
    for (int i = 0; i < D; ++i) {
      all.low[i] = std::min(all.low[i], range.low[i]);
      all.high[i] = std::max(all.high[i], range.high[i]);
    }
  }
  Numbering<D> numbering;
  TORCH_CHECK_VALUE(all.finite, kNotFinite);
  TORCH_CHECK_VALUE(all.near && numbering.fit(all.low, all.high, pixels.sets), kTooManyCells);
  return numbering;
}

template <int D>
void Lattice<D>::find_corners(
    const Pixels<D>& pixels, const Numbering<D>& numbering, int64_t index, std::vector<int64_t>& numbers) {
  const Slab& slab = slabs_[index];
  const Scale<D> scale;
  VertexTable table(slab.count / 4);
  float features[D][kTile];
  Simplices<D> found;
  for (int64_t first = 0; first < slab.count; first += kTile) {
    const int count = std::min<int64_t>(kTile, slab.count - first);
    pixels.features(slab.set, slab.first + first, count, features);
    locate(features, scale, found);
    const int64_t start = (slab.set * points_ + slab.first + first) * (D + 1);
    int32_t* corner = corner_.data() + start;
    float* weight = weight_.data() + start;
    for (int p = 0; p < count; ++p, corner += D + 1, weight += D + 1) {
      int32_t cell[D + 1];
      int rank[D + 1], falling[D + 1];
      float inside[D + 1];
      for (int i = 0; i <= D; ++i) {
        cell[i] = found.cell[i][p];
        rank[i] = found.rank[i][p];
        inside[i] = found.inside[i][p];
      }
      corner_weights<D>(inside, rank, weight, falling);
      int64_t number = numbering.origin(cell, slab.set);
      for (int r = 0; r <= D; ++r) {
        corner[r] = table.find_or_add(number, numbers);
        number += numbering.step[falling[r]];
      }
    }
  }
}

// One vertex is known to several slabs: number the vertices in the order of the slabs, and find their neighbours.
template <int D>
void Lattice<D>::join_slabs(const std::vector<std::vector<int64_t>>& slab_numbers, const Numbering<D>& numbering) {
  for (size_t i = 0; i < slabs_.size(); ++i) {
    slabs_[i].rows = slab_rows_;
    slabs_[i].row_count = slab_numbers[i].size();
    slab_rows_ += slabs_[i].row_count;
  }
  TORCH_CHECK_VALUE(
      slab_rows_ < std::numeric_limits<int32_t>::max() / 2, "Too many pixels at once: their lattice has ", slab_rows_, " vertices, 2^30 is the most");
  vertex_ = Array<int32_t>(slab_rows_);
  std::vector<int64_t> numbers;
  VertexTable table(slab_rows_);
  int64_t row = 0;
  for (const auto& slab : slab_numbers) {
    for (const int64_t number : slab) vertex_[row++] = table.find_or_add(number, numbers);
  }
  vertices_ = numbers.size();

  share_starts_.assign(vertices_ + 1, 0);
  for (int64_t i = 0; i < slab_rows_; ++i) ++share_starts_[vertex_[i] + 1];
  for (int64_t v = 0; v < vertices_; ++v) share_starts_[v + 1] += share_starts_[v];
  shares_.resize(slab_rows_);
  std::vector<int32_t> next(share_starts_.begin(), share_starts_.end() - 1);
  for (int64_t i = 0; i < slab_rows_; ++i) shares_[next[vertex_[i]]++] = i;

  Array<int32_t> after((D + 1) * vertices_);
  parallel((D + 1) * vertices_, [&](int64_t i) {
    after[i] = table.find(numbers[i % vertices_] + numbering.step[i / vertices_]);
  }, 1 << 12);
  parallel(D + 1, [&](int64_t axis) {
    const int32_t* ahead = after.data() + axis * vertices_;
    std::vector<bool> has_before(vertices_);
    for (int64_t v = 0; v < vertices_; ++v) {
      if (ahead[v] >= 0) has_before[ahead[v]] = true;
    }
    Chains& chains = chains_[axis];
    for (int64_t v = 0; v < vertices_; ++v) {
      if (has_before[v] || ahead[v] < 0) continue;
      chains.starts.push_back(chains.vertices.size());
      for (int32_t u = v; u >= 0; u = ahead[u]) chains.vertices.push_back(u);
    }
    chains.starts.push_back(chains.vertices.size());
    chains.vertices.insert(chains.vertices.end(), kAhead, 0);
  });
}

template <int D>
void Lattice<D>::blur_sums(const float* slab_table, float* table, int64_t width) const {
  at::parallel_for(0, vertices_, 1 << 10, [&](int64_t begin, int64_t end) {
    gather(share_starts_.data(), shares_.data(), begin, end, slab_table, table, width);
  });
  blur_table(table, width);
}

template <int D>
void Lattice<D>::blur_table(float* table, int64_t width) const {
  for (const Chains& chains : chains_) {
    const auto count = static_cast<int64_t>(chains.starts.size()) - 1;
    at::parallel_for(0, count, 1 << 7, [&](int64_t begin, int64_t end) {
      blur(chains.starts.data(), chains.vertices.data(), begin, end, table, width);
    });
  }
}

template struct Pixels<2>;
template struct Pixels<5>;
template class Lattice<2>;
template class Lattice<5>;

at::Tensor bilateral_filter_cpu(
    const at::Tensor& any_image, const at::Tensor& any_values, double sigma_rgb, double sigma_xy) {
  check_sizes(any_image, any_values);
  const at::Tensor image = any_image.contiguous(), values = any_values.contiguous();
  const int64_t sets = values.size(0), channels = values.size(1), height = values.size(2), width = values.size(3);
  at::Tensor result = at::empty_like(values);
  if (values.numel() == 0) return result;
  const auto xy = static_cast<float>(sigma_xy), rgb = static_cast<float>(sigma_rgb);
  const Pixels<5> pixels{image.const_data_ptr<float>(), sets, height, width, 0, height, {xy, xy, rgb, rgb, rgb}};
  const Lattice<5> lattice(pixels, 4096);

  const int64_t row = row_width(channels), plane = height * width;
  const at::Tensor slab_table = at::empty({lattice.slab_rows(), row}, values.options());
  const at::Tensor table = at::empty({lattice.vertices(), row}, values.options());
  const float* from = values.const_data_ptr<float>();
  float* to = result.mutable_data_ptr<float>();
  const auto& slabs = lattice.slabs();
  const at::Tensor zeros = at::zeros({kTile, row}, values.options());
  const std::vector<float> ones(kTile, 1), factor(kTile, kSliceFactor<5>);
  // Calls work(slab, first point, points, rows) for tiles of each slab.
  const auto for_tiles = [&](const auto& work) {
    at::parallel_for(0, slabs.size(), 1, [&](int64_t begin, int64_t end) {
      const at::Tensor rows = at::empty({kTile, row}, values.options());
      for (int64_t i = begin; i < end; ++i) {
        for (int64_t first = 0; first < slabs[i].count; first += kTile) {
          const int count = std::min<int64_t>(kTile, slabs[i].count - first);
          work(slabs[i], first, count, rows.template mutable_data_ptr<float>());
        }
      }
    });
  };
  for_tiles([&](const auto& slab, int64_t first, int count, float* rows) {
    float* sums = slab_table.mutable_data_ptr<float>() + slab.rows * row;
    if (first == 0) std::memset(sums, 0, slab.row_count * row * sizeof(float));
    planes_to_rows(from + slab.set * channels * plane + slab.first + first, plane, channels, count, 0, rows, row);
    splat(rows, ones.data(), count, lattice.corners(slab, first), sums, row);
  });
  lattice.blur_sums(slab_table.const_data_ptr<float>(), table.mutable_data_ptr<float>(), row);
  for_tiles([&](const auto& slab, int64_t first, int count, float* rows) {
    const Corners corners = lattice.corners(slab, first);
    slice(
        zeros.const_data_ptr<float>(),
        table.const_data_ptr<float>(),
        lattice.vertices_of(slab),
        corners,
        factor.data(),
        count,
        rows,
        row);
    rows_to_planes(rows, row, channels, count, to + slab.set * channels * plane + slab.first + first, plane);
  });
  return result;
}

}  // namespace fsr
