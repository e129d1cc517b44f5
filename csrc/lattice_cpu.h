// The permutohedral lattice on the CPU: built once for some pixels, it filters any number of values on them.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <vector>

#include "lattice.h"
#include "rows.h"

namespace fsr {

// Memory that is not initialised: writing zeros would cost as much as a pass of the filter. Large arrays use huge pages
// where the system has them, because rows are read in random order.
template <class T>
class Array {
 public:
  Array() = default;
  explicit Array(int64_t size) {
    constexpr size_t line = 64, huge = 1 << 21;
    const size_t bytes = std::max<size_t>(size * sizeof(T), 1), alignment = bytes >= huge ? huge : line;
    data_.reset(static_cast<T*>(std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment)));
    if (data_ == nullptr) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
    if (alignment == huge) madvise(data_.get(), bytes, MADV_HUGEPAGE);
#endif
  }
  T* data() const { return data_.get(); }
  T& operator[](int64_t i) const { return data_.get()[i]; }

 private:
  struct Free {
    void operator()(T* data) const { std::free(data); }
  };
  std::unique_ptr<T, Free> data_;
};

// The pixels of images of one size.
template <int D>
struct Pixels {
  const float* image;  // [sets, 3, height, width]; not read if D = 2
  int64_t height, width;
  float sigma[D];
};

// Pixels of one image that lie together. They meet their vertices in a small table of their own, which stays in the
// cache and belongs to one thread; how an image is cut does not depend on the number of threads, so neither do sums.
struct Block {
  int64_t set, y, x, height, width;  // pixels
  int64_t points = 0;                // pixels of the blocks before
  int64_t rows = 0, row_count = 0;   // its vertices' rows in the table of all blocks

  // Calls work(pixel in the image, point in the block, count) for runs of at most kTile pixels of an image row.
  template <class Work>
  void for_runs(int64_t image_width, const Work& work) const {
    for (int64_t row = 0; row < height; ++row) {
      for (int64_t first = 0; first < width; first += kTile) {
        const int count = std::min<int64_t>(kTile, width - first);
        work((y + row) * image_width + x + first, row * width + first, count);
      }
    }
  }
};

// Images cut into squares of `side` pixels, less at the right and below.
std::vector<Block> cut(int64_t sets, int64_t height, int64_t width, int64_t side);

template <int D>
class Lattice {
 public:
  // Raises ValueError for pixels that are not finite, or that span too many cells.
  Lattice(const Pixels<D>& pixels, std::vector<Block> blocks);

  const std::vector<Block>& blocks() const { return blocks_; }
  int64_t block_rows() const { return block_rows_; }
  int64_t vertices() const { return vertices_; }

  Corners corners(const Block& block, int64_t point) const {
    const int64_t first = (block.points + point) * (D + 1);
    return {D + 1, corner_.data() + first, weight_.data() + first};
  }
  // For each of the block's rows, the vertex that it is a share of.
  const int32_t* vertices_of(const Block& block) const { return vertex_.data() + block.rows; }

  // From the blocks' rows [block_rows, width] to the vertices' [vertices, width]: sums and blurs.
  void blur_sums(const float* block_table, float* table, int64_t width) const;
  // The second half of it, in place.
  void blur_table(float* table, int64_t width) const;

 private:
  using Numbers = std::vector<int64_t>;  // of vertices, in the order of their first appearance

  Numbering<D> number_points(const Pixels<D>& pixels);
  Numbers find_corners(const Pixels<D>& pixels, const Numbering<D>& numbering, const Block& block);
  void join_blocks(const std::vector<Numbers>& block_numbers, const Numbering<D>& numbering);

  struct Chains {
    std::vector<int32_t> starts, vertices;  // of neighbours along one axis; a vertex without any is in none
  };

  std::vector<Block> blocks_;
  int64_t block_rows_ = 0, vertices_ = 0;
  Array<int32_t> corner_;  // [points, D + 1], rows of the block
  Array<float> weight_;    // [points, D + 1]
  Array<int32_t> vertex_;  // [block_rows]
  std::vector<int32_t> share_starts_, shares_;  // of each vertex: its rows in the blocks
  Chains chains_[D + 1];
};

}  // namespace fsr
