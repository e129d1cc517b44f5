// The permutohedral lattice on the CPU: built once for some pixels, it filters any number of values on them.
#pragma once

#include <memory>
#include <vector>

#include "lattice.h"
#include "rows.h"

namespace fsr {

// Memory without its first write: zeros that nobody reads would cost as much as a pass of the filter.
template <class T>
class Array {
 public:
  Array() = default;
  explicit Array(int64_t size) : data_(std::make_unique_for_overwrite<T[]>(size)) {}
  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  T& operator[](int64_t i) { return data_[i]; }
  const T& operator[](int64_t i) const { return data_[i]; }

 private:
  std::unique_ptr<T[]> data_;
};

// The pixels of some rows of images of one size, as points: place (D = 2), or place and colour (D = 5).
template <int D>
struct Pixels {
  const float* image;  // [sets, 3, height, width]; not read if D = 2
  int64_t sets, height, width;
  int64_t first_row, rows;
  float sigma[D];

  int64_t count() const { return rows * width; }
  // Features of `count` points of a set from the one numbered `first`; what is left of the tile repeats the last.
  void features(int64_t set, int64_t first, int count, float (&features)[D][kTile]) const;
  bool finite(int64_t set, int64_t first, int64_t count) const;
};

template <int D>
class Lattice {
 public:
  // Points of one set that lie together. They meet their vertices in a small table of their own, which stays in the
  // cache and belongs to one thread; how the points are cut does not depend on the number of threads, so neither do sums.
  struct Slab {
    int64_t set, first, count;  // points
    int64_t rows, row_count;    // its vertices' rows in the table of all slabs
  };

  // Raises ValueError for pixels that are not finite, or that span too many cells.
  Lattice(const Pixels<D>& pixels, int64_t slab_points);

  const std::vector<Slab>& slabs() const { return slabs_; }
  int64_t slab_rows() const { return slab_rows_; }
  int64_t vertices() const { return vertices_; }

  Corners corners(const Slab& slab, int64_t point) const {
    const int64_t first = (slab.set * points_ + slab.first + point) * (D + 1);
    return {D + 1, corner_.data() + first, weight_.data() + first};
  }
  // For each of the slab's rows, the vertex that it is a share of.
  const int32_t* vertices_of(const Slab& slab) const { return vertex_.data() + slab.rows; }

  // From the slabs' rows [slab_rows, width] to the vertices' [vertices, width]: sums and blurs.
  void blur_sums(const float* slab_table, float* table, int64_t width) const;
  // The second half of it, in place.
  void blur_table(float* table, int64_t width) const;

 private:
  Numbering<D> number_points(const Pixels<D>& pixels);
  void find_corners(const Pixels<D>& pixels, const Numbering<D>& numbering, int64_t slab, std::vector<int64_t>& numbers);
  void join_slabs(const std::vector<std::vector<int64_t>>& numbers, const Numbering<D>& numbering);

  struct Chains {
    std::vector<int32_t> starts, vertices;  // of neighbours along one axis; a vertex without any is in none
  };

  int64_t points_;  // a set
  std::vector<Slab> slabs_;
  int64_t slab_rows_ = 0, vertices_ = 0;
  Array<int32_t> corner_;  // [sets, points, D + 1], rows of the slab
  Array<float> weight_;    // [sets, points, D + 1]
  Array<int32_t> vertex_;  // [slab_rows]
  std::vector<int32_t> share_starts_, shares_;  // of each vertex: its rows in the slabs
  Chains chains_[D + 1];
};

}  // namespace fsr
