#pragma once

// How many rows the tiles of a matrix product have.

#include "backend/cpu/amx_tile.h"
#include "backend/cpu/matmul_tile.h"

namespace foretoken::cpu {
namespace {

/// The tiles' rows on this thread: 0 to 3 (sums) and 4, 5 (left operands) as given, 6, 7 all (right ones).
class TileRows {
 public:
  ~TileRows() {
    if (first_ != 0) release_amx();
  }

  /// Of the first row of tiles and of the second (sums 2, 3 and left 5), or of all tiles of sums where that is 0. All
  /// tiles become zero if something changes.
  FORETOKEN_INLINE void set(int first, int second) {
    if (first == first_ && second == second_) return;
    first_ = first;
    second_ = second;
    const int of_second = second == 0 ? first : second;
    const int rows[8] = {first, first, of_second, of_second, first, of_second, kAmxRows, kAmxRows};
    TileShapes shapes;
    for (int tile = 0; tile < 8; ++tile) shapes.set(tile, rows[tile], kAmxRowBytes);
    set_amx(shapes);
  }

 private:
  int first_ = 0, second_ = 0;
};

}  // namespace
}  // namespace foretoken::cpu
