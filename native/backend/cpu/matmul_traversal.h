#pragma once

// The one traversal of the matrix product, instantiated by each kernel file for its own vectors. The order of sums is
// the tile's, k by k; what follows only says which tile comes when, and may depend on anything.

#include "backend/cpu/matmul_pack.h"
#include "backend/cpu/matmul_tile.h"

namespace foretoken::cpu {
namespace {

// Of the right operand's panels, at a time; beside them the second-level cache holds rows of the left one.
constexpr int64_t kPanelCacheBytes = 384 << 10;

/// How many panels a tile of so many rows may span: few rows alone would leave the multipliers waiting for each other.
template <typename Product>
constexpr int most_panels(int rows) {
  const int panels = Product::tile_rows / rows;
  return panels < 4 ? panels : 4;
}

/// The tile's columns, all that `vectors` vectors or fewer hold. Only tiles of one panel come in all widths: where
/// several are side by side, a vector too many costs little.
template <typename Product, int rows, int vectors>
FORETOKEN_INLINE void multiply_columns(const Tile& tile) {
  constexpr int fewer = vectors - (most_panels<Product>(rows) > 1 ? Product::panel_vectors : 1);
  if constexpr (fewer > 0) {
    if (tile.columns <= fewer * Product::lanes) return multiply_columns<Product, rows, fewer>(tile);
  }
  if (tile.columns % Product::lanes == 0) multiply_tile<Product, rows, vectors>(tile);
  else multiply_edge_tile<Product>(multiply_tile<Product, rows, vectors>, tile, rows, vectors * Product::lanes);
}

FORETOKEN_INLINE const float* moved(const float* from, int64_t by) { return from == nullptr ? nullptr : from + by; }

FORETOKEN_INLINE void* out_at(const Block& block, int64_t row, int64_t column) {
  return static_cast<char*>(block.out) + (row * block.out_stride + column) * (block.out_bfloat16 ? 2 : 4);
}

/// Says which part of the right operand is to be asked for meanwhile. One tile of rows: what it needs itself a little
/// later. Several, but few: each its share of the next panel, which would otherwise come too slowly for the first.
template <typename Product>
FORETOKEN_INLINE void ask_ahead(const Block& block, int64_t row, bool several_panels, Tile& tile) {
  constexpr int64_t unit_bytes = Product::panel_vectors * Product::lanes * 4;
  const int64_t tiles = (block.row_end - block.row_begin + Product::tile_rows - 1) / Product::tile_rows;
  if (tiles > 1 && tiles <= 4) {
    const int64_t index = (row - block.row_begin) / Product::tile_rows;
    tile.ahead_step = (unit_bytes / tiles + 63) / 64 * 64;
    tile.ahead = tile.b + block.panel_units * unit_bytes + index * block.units * tile.ahead_step;
  } else {
    tile.ahead_step = unit_bytes;
    tile.ahead = tile.b + (several_panels ? kPrefetchBytesOfEach : kPrefetchBytes);
  }
}

/// `count` rows from `row`, which are `rows` or fewer, by the columns [begin, end).
template <typename Product, int rows>
FORETOKEN_INLINE void multiply_rows(const Block& block, const char* a, int64_t row, int64_t count, int64_t begin,
                                    int64_t end) {
  if constexpr (rows > 1) {
    if (count < rows) return multiply_rows<Product, rows - 1>(block, a, row, count, begin, end);
  }
  constexpr int panels = most_panels<Product>(rows), width = Product::panel_vectors * Product::lanes;
  for (int64_t column = begin; column < end;) {
    // Even tiles again: 5 panels are 3 and 2 rather than 4 and 1.
    const int64_t left = (end - column + width - 1) / width, tiles = (left + panels - 1) / panels;
    const int64_t wide = (left + tiles - 1) / tiles * width;
    const int64_t columns = wide < end - column ? wide : end - column;
    Tile tile = {a, block.a_row_bytes, block.a_unit_bytes,
                       block.b + column * block.panel_units * 4, block.units, block.panel_units, block.a_half_unit,
                       moved(block.start, row * block.start_stride + column), block.start_stride,
                       moved(block.bias, column),
                       moved(block.residual, row * block.residual_stride + column), block.residual_stride,
                       out_at(block, row, column), block.out_stride, block.out_bfloat16,
                       columns, nullptr, 0};
    ask_ahead<Product>(block, row, wide > width, tile);
    if (block.start != nullptr && row + rows < block.row_end) {
      // The next rows' sums are far away in memory, and all of a tile waits for where it starts from.
      for (int64_t r = row + rows; r < row + 2 * rows && r < block.row_end; ++r) {
        const float* const next = block.start + r * block.start_stride + column;
        for (int64_t c = 0; c < columns; c += 16) __builtin_prefetch(next + c, 1);
      }
    }
    multiply_columns<Product, rows, panels * Product::panel_vectors>(tile);
    column += columns;
  }
}

/// The rows of a block by the columns [begin, end), tile by tile.
template <typename Product>
FORETOKEN_INLINE void multiply_tiles(const Block& block, int64_t begin, int64_t end) {
  constexpr int tile_rows = Product::tile_rows;
  for (int64_t row = block.row_begin; row < block.row_end;) {
    const int64_t left = block.row_end - row, tiles = (left + tile_rows - 1) / tile_rows;
    int64_t rows = (left + tiles - 1) / tiles;   // even tiles: 9 rows are 5 and 4 rather than 8 and 1
    const char* a = block.a;
    if (block.a_group_rows > 0) {
      rows = left < tile_rows ? left : tile_rows;
      a += row / block.a_group_rows * block.a_group_bytes + row % block.a_group_rows * block.a_row_bytes;
    } else {
      a += row * block.a_row_bytes;
    }
    multiply_rows<Product, tile_rows>(block, a, row, rows, begin, end);
    row += rows;
  }
}

/// One panel too long for the cache, with unpacked rows and sums from zero: some rows at a time go through it part by
/// part, their sums waiting in memory meanwhile.
template <typename Product>
__attribute__((noinline)) void multiply_long_panel(const Block& block, int64_t begin, int64_t end) {
  constexpr int width = Product::panel_vectors * Product::lanes, some_rows = 8 * Product::tile_rows;
  constexpr int64_t most_units = kPanelCacheBytes / (width * 4);
  const int64_t parts = (block.units + most_units - 1) / most_units, step = (block.units + parts - 1) / parts;
  alignas(64) float sums[some_rows * width];
  for (int64_t row = block.row_begin; row < block.row_end; row += some_rows) {
    Block part = block;
    part.row_begin = 0;
    part.row_end = block.row_end - row < some_rows ? block.row_end - row : some_rows;
    part.a += row * block.a_row_bytes;
    part.b += begin * block.panel_units * 4;
    for (int64_t unit = 0; unit < block.units; unit += step) {
      const bool first = unit == 0, last = unit + step >= block.units;
      part.units = last ? block.units - unit : step;
      part.a_half_unit = last && block.a_half_unit;
      part.start = first ? nullptr : sums;
      part.start_stride = width;
      part.bias = last ? moved(block.bias, begin) : nullptr;
      part.residual = last ? moved(block.residual, row * block.residual_stride + begin) : nullptr;
      part.out = last ? out_at(block, row, begin) : sums;
      part.out_stride = last ? block.out_stride : width;
      part.out_bfloat16 = last && block.out_bfloat16;
      multiply_tiles<Product>(part, 0, end - begin);
      part.a += step * block.a_unit_bytes;
      part.b += step * width * 4;
    }
  }
}

template <typename Product>
void multiply_block(const Block& block) {
  constexpr int width = Product::panel_vectors * Product::lanes;
  const int64_t panel_bytes = block.units * width * 4;
  // For many rows some panels, kept in the second-level cache while the rows pass by; for few, one: all is near then.
  const bool many_rows = block.row_end - block.row_begin > 4 * Product::tile_rows;
  const int64_t panels = many_rows && panel_bytes > 0 ? kPanelCacheBytes / panel_bytes : 1;
  const int64_t step = (panels > 1 ? panels : 1) * width;
  const bool too_long = many_rows && panel_bytes > kPanelCacheBytes * 3 / 2 && block.a_group_rows == 0;
  for (int64_t begin = block.column_begin; begin < block.column_end; begin += step) {
    const int64_t end = begin + step < block.column_end ? begin + step : block.column_end;
    if (too_long) multiply_long_panel<Product>(block, begin, end);
    else multiply_tiles<Product>(block, begin, end);
  }
}

template <typename Product>
constexpr MatmulKernels kernels_of() {
  static_assert(Product::tile_rows <= 8 && Product::panel_vectors <= 3);
  static_assert(Product::group_rows % Product::tile_rows == 0 && Product::group_rows % Product::lanes == 0);
  return {Product::tile_rows, Product::panel_vectors * Product::lanes, Product::group_rows, 3, 1,
          multiply_block<Product>, pack_block<Product>, pack_block<Product>};
}

}  // namespace
}  // namespace foretoken::cpu
