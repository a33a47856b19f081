#pragma once

// The one traversal of the matrix product, instantiated by each kernel file for its own vectors. Everything sits in an
// anonymous namespace: each kernel file is compiled for another instruction set, and no two may share a function.
//
// A kernel file gives its `Vectors`:
//   Floats, Words, Halves     vectors of `lanes` float, uint32_t, uint16_t
//   tile_rows, panel_vectors  the tile of sums held in registers: rows by vectors
//   group_rows                of a packed left operand: whole tiles and whole vectors
//   broadcast(word)           a unit in every lane
//   multiply_add(a, b, sum)   sum + a b
// and combines them with a way to multiply units, a `Product`: Float32 or WidenedBFloat16 below, or one of its own.

#include <stdint.h>

#include "backend/cpu/matmul_kernels.h"

namespace foretoken::cpu {
namespace {

// Of the right operand's panels, at a time; beside them the second-level cache holds rows of the left one.
constexpr int64_t kPanelCacheBytes = 384 << 10;

// How far ahead of its use a panel is asked for, if it comes alone or among others: the processor's own prefetching starts
// anew at every 4 KiB, and few rows are done with a line before the next has come.
constexpr int64_t kPrefetchBytes = 12288, kPrefetchBytesOfEach = 4096;

#define FORETOKEN_INLINE inline __attribute__((always_inline))

template <typename Value>
FORETOKEN_INLINE Value load(const void* from) {
  Value value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}

template <typename Value>
FORETOKEN_INLINE void store(void* to, Value value) { __builtin_memcpy(to, &value, sizeof value); }

/// Rounded to bfloat16, to nearest with ties to even: the same bits as `BFloat16(value)`.
template <typename Vectors>
FORETOKEN_INLINE typename Vectors::Halves round_to_bfloat16(typename Vectors::Floats value) {
  using Words = typename Vectors::Words;
  const Words u = reinterpret_cast<Words>(value);
  const Words rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  return __builtin_convertvector((u & 0x7fffffffu) > 0x7f800000u ? (u >> 16) | 0x40u : rounded, typename Vectors::Halves);
}

/// Units that are float32 numbers.
template <typename Vectors>
struct Float32 : Vectors {
  using typename Vectors::Floats, typename Vectors::Words, typename Vectors::Halves;
  static constexpr bool bfloat16 = false;
  static constexpr int phases = 1;   // steps that a unit takes
  template <int phase>
  static FORETOKEN_INLINE Floats multiply_add(Words a, Words b, Floats sum) {
    return Vectors::multiply_add(reinterpret_cast<Floats>(a), reinterpret_cast<Floats>(b), sum);
  }
  static FORETOKEN_INLINE Halves narrow(Floats value) { return round_to_bfloat16<Vectors>(value); }
};

/// Units that are pairs of bfloat16, whose halves are widened and multiplied one after the other.
template <typename Vectors>
struct WidenedBFloat16 : Vectors {
  using typename Vectors::Floats, typename Vectors::Words, typename Vectors::Halves;
  static constexpr bool bfloat16 = true;
  static constexpr int phases = 2;
  template <int phase>
  static FORETOKEN_INLINE Floats multiply_add(Words a, Words b, Floats sum) {
    const Words left = phase == 0 ? a << 16 : a & 0xffff0000u;
    const Words right = phase == 0 ? b << 16 : b & 0xffff0000u;
    return Vectors::multiply_add(reinterpret_cast<Floats>(left), reinterpret_cast<Floats>(right), sum);
  }
  static FORETOKEN_INLINE Halves narrow(Floats value) { return round_to_bfloat16<Vectors>(value); }
};

template <int index>
struct Phase { static constexpr int value = index; };

/// A Block's quantities for one tile of the output, all pointers being at the tile's first element.
struct Tile {
  const char* a;
  int64_t a_row_bytes, a_unit_bytes;
  const char* b;
  int64_t units, panel_units;
  bool a_half_unit;
  const float* start;
  int64_t start_stride;
  const float* bias;
  const float* residual;
  int64_t residual_stride;
  void* out;
  int64_t out_stride;
  bool out_bfloat16;
  int64_t columns;   // of the output; a panel's further ones are only computed
};

/// Sums of `rows` rows by `vectors` vectors of columns (of one panel, or of neighbouring ones), all held in registers:
/// sum[r][c] = start[r][c] + Σ_k a[r][k] b[k][c], k in order; then the epilogue.
template <typename Product, int rows, int vectors>
__attribute__((noinline)) void multiply_tile(const Tile& tile) {
  using Floats = typename Product::Floats;
  using Words = typename Product::Words;
  constexpr int lanes = Product::lanes, panel_vectors = Product::panel_vectors;
  constexpr int64_t prefetch_bytes = vectors > panel_vectors ? kPrefetchBytesOfEach : kPrefetchBytes;
  const char* a = tile.a;
  const char* b = tile.b;
  const int64_t row_bytes = tile.a_row_bytes, unit_bytes = tile.a_unit_bytes;
  const int64_t panel_bytes = tile.panel_units * (panel_vectors * lanes * 4);

  Floats sum[rows][vectors];
#pragma GCC unroll 16
  for (int v = 0; v < vectors; ++v) {
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) sum[r][v] = Floats{};
  }
  if (tile.start != nullptr) {
#pragma GCC unroll 16
    for (int v = 0; v < vectors; ++v) {
      if (v * lanes >= tile.columns) break;
#pragma GCC unroll 16
      for (int r = 0; r < rows; ++r) sum[r][v] = load<Floats>(tile.start + r * tile.start_stride + v * lanes);
    }
  }

  const auto step = [&](auto phase, auto fetch) __attribute__((always_inline)) {
    Words right[vectors];
#pragma GCC unroll 16
    for (int v = 0; v < vectors; ++v) right[v] = load<Words>(b + (v / panel_vectors) * panel_bytes + (v % panel_vectors) * lanes * 4);
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) {
      const Words left = Product::broadcast(fetch(a + r * row_bytes));
#pragma GCC unroll 16
      for (int v = 0; v < vectors; ++v) sum[r][v] = Product::template multiply_add<decltype(phase)::value>(left, right[v], sum[r][v]);
    }
  };
  const auto whole = [](const char* from) __attribute__((always_inline)) { return load<uint32_t>(from); };
  const auto half = [](const char* from) __attribute__((always_inline)) { return static_cast<uint32_t>(load<uint16_t>(from)); };
  for (int64_t unit = tile.units - tile.a_half_unit; unit > 0; --unit) {
    step(Phase<0>{}, whole);
    if constexpr (Product::phases == 2) step(Phase<1>{}, whole);
#pragma GCC unroll 16
    for (int v = 0; v < vectors; ++v) __builtin_prefetch(b + (v / panel_vectors) * panel_bytes + (v % panel_vectors) * lanes * 4 + prefetch_bytes);
    a += unit_bytes;
    b += panel_vectors * lanes * 4;
  }
  if constexpr (Product::bfloat16) {
    if (tile.a_half_unit) {
      step(Phase<0>{}, half);
      if constexpr (Product::phases == 2) step(Phase<1>{}, half);
    }
  }

#pragma GCC unroll 16
  for (int v = 0; v < vectors; ++v) {
    if (v * lanes >= tile.columns) break;
    if (tile.bias != nullptr) {
      const Floats bias = load<Floats>(tile.bias + v * lanes);
#pragma GCC unroll 16
      for (int r = 0; r < rows; ++r) sum[r][v] += bias;
    }
    if (tile.residual != nullptr) {
#pragma GCC unroll 16
      for (int r = 0; r < rows; ++r) sum[r][v] += load<Floats>(tile.residual + r * tile.residual_stride + v * lanes);
    }
    if (tile.out_bfloat16) {
#pragma GCC unroll 16
      for (int r = 0; r < rows; ++r) {
        store<typename Product::Halves>(static_cast<uint16_t*>(tile.out) + r * tile.out_stride + v * lanes, Product::narrow(sum[r][v]));
      }
    } else {
#pragma GCC unroll 16
      for (int r = 0; r < rows; ++r) store<Floats>(static_cast<float*>(tile.out) + r * tile.out_stride + v * lanes, sum[r][v]);
    }
  }
}

/// A tile whose last vector is wider than the matrix: `whole` computes it beside, and what there is room for is copied.
template <typename Product>
__attribute__((noinline)) void multiply_edge_tile(void (*whole)(const Tile&), const Tile& tile, int rows, int width) {
  const int64_t columns = tile.columns;
  float sums[Product::tile_rows * Product::panel_vectors * Product::lanes] = {};
  Tile inner = tile;
  if (tile.start != nullptr) {
    for (int r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < columns; ++c) sums[r * width + c] = tile.start[r * tile.start_stride + c];
    }
    inner.start = sums;
    inner.start_stride = width;
  }
  inner.bias = inner.residual = nullptr;
  inner.out = sums;
  inner.out_stride = width;
  inner.out_bfloat16 = false;
  inner.columns = width;
  whole(inner);
  for (int r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) {
      float value = sums[r * width + c];
      if (tile.bias != nullptr) value += tile.bias[c];
      if (tile.residual != nullptr) value += tile.residual[r * tile.residual_stride + c];
      if (tile.out_bfloat16) {
        const uint32_t word = load<uint32_t>(&value);
        static_cast<uint16_t*>(tile.out)[r * tile.out_stride + c] =
            Product::narrow(reinterpret_cast<typename Product::Floats>(Product::broadcast(word)))[0];
      } else {
        static_cast<float*>(tile.out)[r * tile.out_stride + c] = value;
      }
    }
  }
}

/// How many panels a tile of so many rows may span: few rows alone would leave the multipliers waiting for each other.
template <typename Product>
constexpr int most_panels(int rows) {
  const int panels = Product::tile_rows / rows;
  return panels < 4 ? panels : 4;
}

/// The tile's columns, all that `vectors` vectors or fewer hold. Only tiles of one panel come in all widths: where several
/// are side by side, a vector too many costs little.
template <typename Product, int rows, int vectors>
FORETOKEN_INLINE void multiply_columns(const Tile& tile) {
  constexpr int fewer = vectors - (most_panels<Product>(rows) > 1 ? Product::panel_vectors : 1);
  if constexpr (fewer > 0) {
    if (tile.columns <= fewer * Product::lanes) return multiply_columns<Product, rows, fewer>(tile);
  }
  if (tile.columns % Product::lanes == 0) multiply_tile<Product, rows, vectors>(tile);
  else multiply_edge_tile<Product>(multiply_tile<Product, rows, vectors>, tile, rows, vectors * Product::lanes);
}

/// `count` rows from `row`, which are `rows` or fewer, by the columns [begin, end).
template <typename Product, int rows>
FORETOKEN_INLINE void multiply_rows(const Block& block, const char* a, int64_t row, int64_t count, int64_t begin, int64_t end) {
  if constexpr (rows > 1) {
    if (count < rows) return multiply_rows<Product, rows - 1>(block, a, row, count, begin, end);
  }
  constexpr int panels = most_panels<Product>(rows), width = Product::panel_vectors * Product::lanes;
  for (int64_t column = begin; column < end;) {
    // Even tiles again: 5 panels are 3 and 2 rather than 4 and 1.
    const int64_t left = (end - column + width - 1) / width, tiles = (left + panels - 1) / panels;
    const int64_t wide = (left + tiles - 1) / tiles * width;
    const int64_t columns = wide < end - column ? wide : end - column;
    const int64_t out_at = row * block.out_stride + column;
    const Tile tile = {a, block.a_row_bytes, block.a_unit_bytes,
                       block.b + column * block.panel_units * 4, block.units, block.panel_units, block.a_half_unit,
                       block.start == nullptr ? nullptr : block.start + row * block.start_stride + column, block.start_stride,
                       block.bias == nullptr ? nullptr : block.bias + column,
                       block.residual == nullptr ? nullptr : block.residual + row * block.residual_stride + column,
                       block.residual_stride,
                       static_cast<char*>(block.out) + (block.out_bfloat16 ? 2 : 4) * out_at, block.out_stride, block.out_bfloat16, columns};
    if (block.start != nullptr && row + rows < block.row_end) {
      // The next rows' sums are far away in memory, and all of a tile waits for where it starts from.
      for (int64_t r = row + rows; r < row + 2 * rows && r < block.row_end; ++r) {
        for (int64_t c = 0; c < columns; c += 16) __builtin_prefetch(block.start + r * block.start_stride + column + c, 1);
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

/// One panel too long for the cache: some rows go through it part by part, their sums waiting in memory meanwhile.
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
      part.bias = last && block.bias != nullptr ? block.bias + begin : nullptr;
      part.residual = last && block.residual != nullptr ? block.residual + row * block.residual_stride + begin : nullptr;
      part.out = last ? static_cast<char*>(block.out) + (row * block.out_stride + begin) * (block.out_bfloat16 ? 2 : 4) : static_cast<void*>(sums);
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
  const bool parts = many_rows && panel_bytes > kPanelCacheBytes * 3 / 2 && block.start == nullptr && block.a_group_rows == 0;
  for (int64_t begin = block.column_begin; begin < block.column_end; begin += step) {
    const int64_t end = begin + step < block.column_end ? begin + step : block.column_end;
    if (parts) multiply_long_panel<Product>(block, begin, end);
    else multiply_tiles<Product>(block, begin, end);
  }
}

// ---- Packing -------------------------------------------------------------------------------------------------------

/// `lanes` neighbouring elements, of which `count` are there: the bits of float32, or of bfloat16 in the low halves.
template <typename Product, bool from_bfloat16>
FORETOKEN_INLINE typename Product::Words load_elements(const void* source, int64_t index, int64_t count) {
  using Words = typename Product::Words;
  using Halves = typename Product::Halves;
  constexpr int lanes = Product::lanes;
  Words words;
  if constexpr (from_bfloat16) {
    const uint16_t* from = static_cast<const uint16_t*>(source) + index;
    uint16_t padded[lanes] = {};
    if (count < lanes) {
      for (int64_t lane = 0; lane < count; ++lane) padded[lane] = from[lane];
      from = padded;
    }
    words = __builtin_convertvector(load<Halves>(from), Words);
    if constexpr (!Product::bfloat16) words <<= 16;
  } else {
    const float* from = static_cast<const float*>(source) + index;
    float padded[lanes] = {};
    if (count < lanes) {
      for (int64_t lane = 0; lane < count; ++lane) padded[lane] = from[lane];
      from = padded;
    }
    words = load<Words>(from);
    if constexpr (Product::bfloat16) {
      words = __builtin_convertvector(round_to_bfloat16<Product>(load<typename Product::Floats>(from)), Words);
    }
  }
  return words;
}

/// Element (k, n) is source[k * stride + n]: a unit's halves come from two rows. A few rows side by side: along each the
/// hardware prefetches, and what is written is contiguous for some lines.
template <typename Product, bool from_bfloat16>
void pack_rows(const PackJob& job) {
  constexpr int lanes = Product::lanes, per_unit = Product::bfloat16 ? 2 : 1, k_step = 8 * per_unit;
  const int64_t unit_bytes = job.width * 4;
  for (int64_t k_begin = job.k_begin; k_begin < job.k_end; k_begin += k_step) {
    const int64_t k_end = k_begin + k_step < job.k_end ? k_begin + k_step : job.k_end;
    char* panel = job.into + k_begin / per_unit * unit_bytes;
    for (int64_t first = job.column_begin; first < job.column_end; first += job.width, panel += job.panel_bytes) {
      for (int64_t at = 0; at < job.width; at += lanes) {
        const int64_t column = first + at, left = job.column_end - column;
        char* into = panel + at * 4;
        for (int64_t k = k_begin; k < k_end; k += per_unit, into += unit_bytes) {
          auto words = load_elements<Product, from_bfloat16>(job.source, k * job.stride + column, left);
          if (per_unit == 2 && k + 1 < k_end) {
            words |= load_elements<Product, from_bfloat16>(job.source, (k + 1) * job.stride + column, left) << 16;
          }
          store(into, words);
        }
      }
    }
  }
}

/// Which elements of two vectors side by side make a third: those at first, first + step, …, or in turns from each.
template <typename Product>
FORETOKEN_INLINE typename Product::Words every_second(int first) {
  typename Product::Words mask;
#pragma GCC unroll 16
  for (int lane = 0; lane < Product::lanes; ++lane) mask[lane] = static_cast<uint32_t>(first + 2 * lane);
  return mask;
}
template <typename Product>
FORETOKEN_INLINE typename Product::Words in_turns(int first) {
  typename Product::Words mask;
#pragma GCC unroll 16
  for (int lane = 0; lane < Product::lanes; ++lane) mask[lane] = static_cast<uint32_t>(first + lane / 2 + lane % 2 * Product::lanes);
  return mask;
}

/// `lanes` units of one column from k on, contiguous in the source; those from k_end on are zero.
template <typename Product, bool from_bfloat16>
FORETOKEN_INLINE typename Product::Words load_units(const PackJob& job, int64_t k, int64_t column) {
  constexpr int lanes = Product::lanes;
  if (column >= job.column_end) return typename Product::Words{};
  const int64_t index = column * job.stride + k, count = job.k_end - k;
  if constexpr (!Product::bfloat16) return load_elements<Product, from_bfloat16>(job.source, index, count);
  if (from_bfloat16 && count >= 2 * lanes) return load<typename Product::Words>(static_cast<const uint16_t*>(job.source) + index);
  const auto first = load_elements<Product, from_bfloat16>(job.source, index, count);
  const auto second = load_elements<Product, from_bfloat16>(job.source, index + lanes, count - lanes);
  return __builtin_shuffle(first, second, every_second<Product>(0)) | __builtin_shuffle(first, second, every_second<Product>(1)) << 16;
}

/// Element (k, n) is source[n * stride + k]: squares of `lanes` columns by `lanes` units are transposed in registers.
template <typename Product, bool from_bfloat16>
void pack_columns(const PackJob& job) {
  using Words = typename Product::Words;
  constexpr int lanes = Product::lanes, per_unit = Product::bfloat16 ? 2 : 1;
  const int64_t unit_bytes = job.width * 4;
  for (int64_t column = job.column_begin, at = 0; column < job.column_end || at != 0; column += lanes) {
    char* into = job.into + (column - job.column_begin - at) / job.width * job.panel_bytes + at * 4 + job.k_begin / per_unit * unit_bytes;
    for (int64_t k = job.k_begin; k < job.k_end; k += lanes * per_unit) {
      Words square[lanes];
#pragma GCC unroll 16
      for (int c = 0; c < lanes; ++c) square[c] = load_units<Product, from_bfloat16>(job, k, column + c);
      // Each round puts a column beside the one half the square away: log₂(lanes) rounds make rows of columns.
#pragma GCC unroll 4
      for (int round = 1; round < lanes; round *= 2) {
        Words next[lanes];
#pragma GCC unroll 8
        for (int c = 0; c < lanes / 2; ++c) {
          next[2 * c] = __builtin_shuffle(square[c], square[c + lanes / 2], in_turns<Product>(0));
          next[2 * c + 1] = __builtin_shuffle(square[c], square[c + lanes / 2], in_turns<Product>(lanes / 2));
        }
#pragma GCC unroll 16
        for (int c = 0; c < lanes; ++c) square[c] = next[c];
      }
      const int64_t units = (job.k_end - k + per_unit - 1) / per_unit;
#pragma GCC unroll 16
      for (int u = 0; u < lanes; ++u, into += unit_bytes) {
        if (u < units) store(into, square[u]);
      }
    }
    at = at + lanes < job.width ? at + lanes : 0;
  }
}

template <typename Product>
void pack_block(const PackJob& job) {
  if (job.source_bfloat16) job.transposed ? pack_columns<Product, true>(job) : pack_rows<Product, true>(job);
  else job.transposed ? pack_columns<Product, false>(job) : pack_rows<Product, false>(job);
}

template <typename Product>
constexpr MatmulKernels kernels_of() {
  static_assert(Product::group_rows % Product::tile_rows == 0 && Product::group_rows % Product::lanes == 0);
  return {Product::tile_rows, Product::panel_vectors * Product::lanes, Product::group_rows, multiply_block<Product>, pack_block<Product>};
}

}  // namespace
}  // namespace foretoken::cpu
