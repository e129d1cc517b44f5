// The lattice simplex of each point, eight points at a time.
#pragma once

#include "lattice.h"
#include "rows.h"

namespace fsr {

// What `enclosing_simplex` finds for kTile points with features [D][kTile], each result [D + 1][kTile].
template <int D>
struct Simplices {
  int32_t cell[D + 1][kTile];
  int32_t rank[D + 1][kTile];
  float inside[D + 1][kTile];
};
// False if a point lies too far out for float32; then the results mean nothing.
template <int D>
bool locate(const float (&features)[D][kTile], const Scale<D>& scale, Simplices<D>& found);

}  // namespace fsr
