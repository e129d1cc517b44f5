#include "lattice_cpu.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty_like.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "simplices.h"

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

// Fewer numbers than these are done before another thread has woken up.
constexpr int64_t kWorthAThread = 1 << 18;

// Calls work(i) for i in [0, count) on all threads.
template <class Work>
void parallel(int64_t count, const Work& work) {
  at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) work(i);
  });
}

// Features of `count` pixels of an image from the one numbered `first`; what is left of the tile repeats the last.
template <int D>
void find_features(const Pixels<D>& pixels, int64_t set, int64_t first, int count, float (&features)[D][kTile]) {
  if (count < 1) __builtin_unreachable();  // or GCC warns of what an empty tile would repeat
  const int64_t x = first % pixels.width;
  const auto y = static_cast<float>(first / pixels.width);
  for (int p = 0; p < count; ++p) {
    features[0][p] = static_cast<float>(x + p) / pixels.sigma[0];
    features[1][p] = y / pixels.sigma[1];
  }
  for (int i = 2; i < D; ++i) {
    const float* plane = pixels.image + (set * 3 + i - 2) * pixels.height * pixels.width + first;
    for (int p = 0; p < count; ++p) features[i][p] = plane[p] / pixels.sigma[i];
  }
  for (int i = 0; i < D; ++i) std::fill(features[i] + count, features[i] + kTile, features[i][count - 1]);
}

}  // namespace

std::vector<Block> cut(int64_t sets, int64_t height, int64_t width, int64_t side) {
  std::vector<Block> blocks;
  for (int64_t set = 0; set < sets; ++set) {
    for (int64_t y = 0; y < height; y += side) {
      for (int64_t x = 0; x < width; x += side) {
        blocks.push_back({set, y, x, std::min(side, height - y), std::min(side, width - x)});
      }
    }
  }
  return blocks;
}

template <int D>
Lattice<D>::Lattice(const Pixels<D>& pixels, std::vector<Block> blocks) : blocks_(std::move(blocks)) {
  int64_t points = 0;
  for (Block& block : blocks_) {
    block.points = points;
    points += block.height * block.width;
  }
  const Numbering<D> numbering = number_points(pixels);
  corner_ = Array<int32_t>(points * (D + 1));
  weight_ = Array<float>(points * (D + 1));
  std::vector<Numbers> numbers(blocks_.size());
  parallel(blocks_.size(), [&](int64_t i) { numbers[i] = find_corners(pixels, numbering, blocks_[i]); });
  join_blocks(numbers, numbering);
}

template <int D>
Numbering<D> Lattice<D>::number_points(const Pixels<D>& pixels) {
  struct Range {
    bool finite = true, near = true;
    int32_t low[D], high[D];
  };
  std::vector<Range> ranges(blocks_.size());
  const Scale<D> scale;
  parallel(blocks_.size(), [&](int64_t index) {
    Range& range = ranges[index];
    std::fill(range.low, range.low + D, std::numeric_limits<int32_t>::max());
    std::fill(range.high, range.high + D, std::numeric_limits<int32_t>::min());
    const int64_t plane = pixels.height * pixels.width;
    blocks_[index].for_runs(pixels.width, [&](int64_t pixel, int64_t, int count) {
      const int64_t set = blocks_[index].set;
      range.finite &= D == 2 || finite(pixels.image + set * 3 * plane + pixel, plane, 3, count);
      if (!range.finite || !range.near) return;
      float features[D][kTile];
      Simplices<D> found;
      find_features(pixels, set, pixel, count, features);
      range.near = locate(features, scale, found);
      for (int i = 0; i < D; ++i) {
        for (int p = 0; p < kTile; ++p) {
          range.low[i] = std::min(range.low[i], found.cell[i][p]);
          range.high[i] = std::max(range.high[i], found.cell[i][p]);
        }
      }
    });
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
  TORCH_CHECK_VALUE(all.finite, kNotFinite);
  Numbering<D> numbering;
  TORCH_CHECK_VALUE(all.near && numbering.fit(all.low, all.high, blocks_.back().set + 1), kTooManyCells);
  return numbering;
}

template <int D>
typename Lattice<D>::Numbers Lattice<D>::find_corners(
    const Pixels<D>& pixels, const Numbering<D>& numbering, const Block& block) {
  const Scale<D> scale;
  Numbers numbers;
  VertexTable table(block.height * block.width * (D == 2 ? 1.2 : 0.5));
  block.for_runs(pixels.width, [&](int64_t pixel, int64_t point, int count) {
    float features[D][kTile];
    Simplices<D> found;
    find_features(pixels, block.set, pixel, count, features);
    locate(features, scale, found);
    int32_t* corner = corner_.data() + (block.points + point) * (D + 1);
    float* weight = weight_.data() + (block.points + point) * (D + 1);
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
      int64_t number = numbering.origin(cell, block.set);
      for (int r = 0; r <= D; ++r) {
        corner[r] = table.find_or_add(number, numbers);
        number += numbering.step[falling[r]];
      }
    }
  });
  return numbers;
}

// One vertex is known to several blocks: number the vertices in the order of the blocks, and find their neighbours.
template <int D>
void Lattice<D>::join_blocks(const std::vector<Numbers>& block_numbers, const Numbering<D>& numbering) {
  for (size_t i = 0; i < blocks_.size(); ++i) {
    blocks_[i].rows = block_rows_;
    blocks_[i].row_count = block_numbers[i].size();
    block_rows_ += blocks_[i].row_count;
  }
  TORCH_CHECK_VALUE(
      block_rows_ < std::numeric_limits<int32_t>::max() / 2, "Too many pixels at once: their lattice has ", block_rows_, " vertices, 2^30 is the most");
  vertex_ = Array<int32_t>(block_rows_);
  std::vector<int64_t> numbers;
  VertexTable table(block_rows_);
  int64_t row = 0;
  for (const auto& block : block_numbers) {
    for (const int64_t number : block) vertex_[row++] = table.find_or_add(number, numbers);
  }
  vertices_ = numbers.size();

  share_starts_.assign(vertices_ + 1, 0);
  for (int64_t i = 0; i < block_rows_; ++i) ++share_starts_[vertex_[i] + 1];
  for (int64_t v = 0; v < vertices_; ++v) share_starts_[v + 1] += share_starts_[v];
  shares_.resize(block_rows_);
  std::vector<int32_t> next(share_starts_.begin(), share_starts_.end() - 1);
  for (int64_t i = 0; i < block_rows_; ++i) shares_[next[vertex_[i]]++] = i;

  parallel(D + 1, [&](int64_t axis) {
    Array<int32_t> after(vertices_);
    std::vector<bool> has_before(vertices_);
    for (int64_t v = 0; v < vertices_; ++v) {
      after[v] = table.find(numbers[v] + numbering.step[axis]);
      if (after[v] >= 0) has_before[after[v]] = true;
    }
    Chains& chains = chains_[axis];
    for (int64_t v = 0; v < vertices_; ++v) {
      if (has_before[v] || after[v] < 0) continue;
      chains.starts.push_back(chains.vertices.size());
      for (int32_t u = v; u >= 0; u = after[u]) chains.vertices.push_back(u);
    }
    chains.starts.push_back(chains.vertices.size());
    chains.vertices.insert(chains.vertices.end(), kAhead, 0);
  });
}

template <int D>
void Lattice<D>::blur_sums(const float* block_table, float* table, int64_t width) const {
  at::parallel_for(0, vertices_, kWorthAThread / width, [&](int64_t begin, int64_t end) {
    gather(share_starts_.data(), shares_.data(), begin, end, block_table, table, width);
  });
  blur_table(table, width);
}

template <int D>
void Lattice<D>::blur_table(float* table, int64_t width) const {
  for (const Chains& chains : chains_) {
    const auto count = static_cast<int64_t>(chains.starts.size()) - 1;
    const int64_t grain = kWorthAThread * count / (width * static_cast<int64_t>(chains.vertices.size()));
    at::parallel_for(0, count, grain + 1, [&](int64_t begin, int64_t end) {
      blur(chains.starts.data(), chains.vertices.data(), begin, end, table, width);
    });
  }
}

template class Lattice<2>;
template class Lattice<5>;

at::Tensor bilateral_filter_cpu(
    const at::Tensor& any_image, const at::Tensor& any_values, double sigma_rgb, double sigma_xy) {
  check_inputs(any_image, any_values);
  const at::Tensor image = any_image.contiguous(), values = any_values.contiguous();
  const int64_t sets = values.size(0), channels = values.size(1), height = values.size(2), width = values.size(3);
  at::Tensor result = at::empty_like(values);
  if (values.numel() == 0) return result;
  const auto xy = static_cast<float>(sigma_xy), rgb = static_cast<float>(sigma_rgb);
  const Pixels<5> pixels{image.const_data_ptr<float>(), height, width, {xy, xy, rgb, rgb, rgb}};
  const Lattice<5> lattice(pixels, cut(sets, height, width, kTile));

  const int64_t row = row_width(channels), plane = height * width;
  const Array<float> block_table(lattice.block_rows() * row), table(lattice.vertices() * row);
  const float* from = values.const_data_ptr<float>();
  float* to = result.mutable_data_ptr<float>();
  const std::vector<float> zeros(kTile * row, 0), ones(kTile, 1), factor(kTile, kSliceFactor<5>);
  // Calls work(block, rows of a tile) for each block.
  const auto for_blocks = [&](const auto& work) {
    at::parallel_for(0, lattice.blocks().size(), 1, [&](int64_t begin, int64_t end) {
      const Array<float> rows(kTile * row);
      for (int64_t i = begin; i < end; ++i) work(lattice.blocks()[i], rows.data());
    });
  };
  for_blocks([&](const Block& block, float* rows) {
    float* sums = block_table.data() + block.rows * row;
    std::memset(sums, 0, block.row_count * row * sizeof(float));
    block.for_runs(width, [&](int64_t pixel, int64_t point, int count) {
      planes_to_rows(from + block.set * channels * plane + pixel, plane, channels, count, 0, rows, row);
      splat(rows, ones.data(), count, lattice.corners(block, point), sums, row);
    });
  });
  lattice.blur_sums(block_table.data(), table.data(), row);
  for_blocks([&](const Block& block, float* rows) {
    block.for_runs(width, [&](int64_t pixel, int64_t point, int count) {
      const Corners corners = lattice.corners(block, point);
      slice(zeros.data(), table.data(), lattice.vertices_of(block), corners, factor.data(), count, rows, row);
      rows_to_planes(rows, row, channels, count, to + block.set * channels * plane + pixel, plane);
    });
  });
  return result;
}

}  // namespace fsr
