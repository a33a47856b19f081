// The matrix product on AMX's tile registers: 32 rows by 32 columns of sums, or 16 by 64 where there are few rows. A step
// takes 32 of K; TDPBF16PS defines the order of the sums within it. Where K ends within a step, zeros follow. float32 has
// no instructions there and is AVX-512's.

#include "backend/cpu/matmul_amx_epilogue.h"
#include "backend/cpu/matmul_amx_tile.h"
#include "backend/cpu/matmul_vectors_avx512.h"

namespace foretoken::cpu {
namespace {

constexpr int kPanelColumns = 2 * kAmxColumns;                       // of the right operand
constexpr int64_t kPanelRowBytes = kPanelColumns * 4;                // one unit of a panel
constexpr int64_t kPanelStepBytes = kAmxUnits * kPanelRowBytes;
constexpr int64_t kPackedStepBytes = kAmxRows * kAmxRowBytes;        // of a packed group of rows
constexpr int64_t kRowStepBytes = kAmxUnits * 4;

// A right operand's part that stays in the first-level cache while rows pass by it.
constexpr int64_t kStepsOfAPart = 16;
// Rows whose left operand stays in the second-level cache while panels pass by; of them, some have sums that wait in
// memory while the parts of a long panel pass by.
constexpr int64_t kRowBytes = 768 << 10, kWaitingRows = 256;
// Rows of a tile are multiplied at the cost of one; that of loading a panel from memory is between one tile's and two's.
// Fewer, so that tasks are short: two threads of one core may run at half the speed of one that has a core for itself.
constexpr int kShareRows = 2;
// How far ahead of its use a panel is asked for when few rows go through all of them.
constexpr int64_t kAheadBytes = 8192;

/// Where a tile of the left operand begins, and how to go on from it.
struct Left {
  const char* at;
  int64_t row_bytes, step_bytes;
};

FORETOKEN_INLINE Left left_of(const Block& block, int64_t row, int64_t first_step) {
  if (block.a_group_rows > 0) {
    return {block.a + row / kAmxRows * block.a_group_bytes + first_step * kPackedStepBytes, kAmxRowBytes,
            kPackedStepBytes};
  }
  return {block.a + row * block.a_row_bytes + first_step * kRowStepBytes, block.a_row_bytes, kRowStepBytes};
}

/// The last, incomplete step of an unpacked left operand, with zeros after its end.
FORETOKEN_INLINE void copy_left(const Left& left, int rows, int64_t bytes, char* into) {
  for (int r = 0; r < rows; ++r) {
    __builtin_memset(into + r * kAmxRowBytes, 0, kAmxRowBytes);
    __builtin_memcpy(into + r * kAmxRowBytes, left.at + r * left.row_bytes, static_cast<size_t>(bytes));
  }
}

/// Sums of a tile: `row_tiles` × `column_tiles`, the number of the tile at (i, j) being 2 i + j.
template <int row_tiles, int column_tiles>
struct Sums {
  static_assert(row_tiles * column_tiles <= 4);
  static constexpr int columns = column_tiles * kAmxColumns;

  template <typename Function>
  static FORETOKEN_INLINE void each(const Function& f) {
    f(Phase<0>{}, Phase<0>{}, Phase<0>{});
    if constexpr (column_tiles > 1) f(Phase<1>{}, Phase<0>{}, Phase<1>{});
    if constexpr (column_tiles > 2) f(Phase<2>{}, Phase<0>{}, Phase<2>{});
    if constexpr (column_tiles > 3) f(Phase<3>{}, Phase<0>{}, Phase<3>{});
    if constexpr (row_tiles > 1) f(Phase<2>{}, Phase<1>{}, Phase<0>{});
    if constexpr (row_tiles > 1 && column_tiles > 1) f(Phase<3>{}, Phase<1>{}, Phase<1>{});
  }
};

/// Steps from `first_step` of a Block's K for `rows` of its rows by the columns of `column_tiles` tiles.
struct Part {
  int64_t first_step, steps;   // whole ones
  bool rest;                   // an incomplete one follows
  const float* start;          // null: from zero
  int64_t start_stride;
  bool last;                   // then the epilogue, into the block's output; else the sums, to `sums`
  float* sums;
  int64_t sums_stride;
  const float* next_start;     // where the next tile's sums start from, asked for meanwhile; null: nothing
};

/// `rows_pass`: the panel stays in the first-level cache while rows pass by it, rather than panels by the rows.
template <int row_tiles, int column_tiles, bool rows_pass>
FORETOKEN_INLINE void multiply_amx_tile(const Block& block, const Part& part, int64_t row, int rows, int64_t column,
                                        int64_t columns, Waiting& waiting) {
  using Tiles = Sums<row_tiles, column_tiles>;
  float* const sums = waiting.room();
  const int row_counts[2] = {rows < kAmxRows ? rows : kAmxRows, rows - kAmxRows};
  const bool whole = columns == Tiles::columns;

  if (part.start == nullptr) {
    Tiles::each([](auto tile, auto, auto) __attribute__((always_inline)) { zero_amx<decltype(tile)::value>(); });
  } else {
    const float* start = part.start;
    int64_t stride = part.start_stride;
    if (!whole) {
      for (int r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < Tiles::columns; ++c) {
          sums[r * Tiles::columns + c] = c < columns ? start[r * stride + c] : 0;
        }
      }
      start = sums;
      stride = Tiles::columns;
    }
    Tiles::each([&](auto tile, auto i, auto j) __attribute__((always_inline)) {
      load_amx<decltype(tile)::value>(start + decltype(i)::value * kAmxRows * stride + decltype(j)::value * kAmxColumns,
                                      stride * 4);
    });
  }

  Left left[2] = {left_of(block, row, part.first_step), {}};
  if constexpr (row_tiles > 1) left[1] = left_of(block, row + kAmxRows, part.first_step);
  const int64_t panel_bytes = block.panel_units * kPanelRowBytes;
  const char* right = block.b + column / kPanelColumns * panel_bytes + part.first_step * kPanelStepBytes;
  const auto step = [&](const char* left0, const char* left1, int64_t left_stride) __attribute__((always_inline)) {
    const auto at = [&](int j) __attribute__((always_inline)) {
      return right + j / 2 * panel_bytes + j % 2 * kAmxRowBytes;
    };
    const auto load_left = [&](auto tile, const char* from) __attribute__((always_inline)) {
      if constexpr (rows_pass) load_amx_once<decltype(tile)::value>(from, left_stride);
      else load_amx<decltype(tile)::value>(from, left_stride);
    };
    load_left(Phase<4>{}, left0);
    load_amx<6>(at(0), kPanelRowBytes);
    multiply_amx<0, 4, 6>();
    if constexpr (column_tiles > 1) {
      load_amx<7>(at(1), kPanelRowBytes);
      multiply_amx<1, 4, 7>();
    }
    if constexpr (row_tiles > 1) {
      load_left(Phase<5>{}, left1);
      multiply_amx<2, 5, 6>();
      if constexpr (column_tiles > 1) multiply_amx<3, 5, 7>();
    }
    if constexpr (column_tiles > 2) {
      load_amx<6>(at(2), kPanelRowBytes);
      multiply_amx<2, 4, 6>();
    }
    if constexpr (column_tiles > 3) {
      load_amx<7>(at(3), kPanelRowBytes);
      multiply_amx<3, 4, 7>();
    }
  };
  const int rows_of_a_step = part.steps > 0 ? static_cast<int>((waiting.rows() + part.steps - 1) / part.steps) : 0;
  const char* next_start = reinterpret_cast<const char*>(part.next_start);
  for (int64_t i = 0; i < part.steps; ++i) {
    waiting.finish(rows_of_a_step);
    if (next_start != nullptr) {
      constexpr int starts = 2 * kAmxRows / kStepsOfAPart;
#pragma GCC unroll 8
      for (int r = 0; r < starts; ++r, next_start += part.start_stride * 4) {
        __builtin_prefetch(next_start, 1);
        __builtin_prefetch(next_start + kAmxRowBytes, 1);
      }
    }
    step(left[0].at, left[1].at, left[0].row_bytes);
    if constexpr (!rows_pass) {
      // Into the second-level cache, where lines come in pairs.
#pragma GCC unroll 32
      for (int j = 0; j < (column_tiles + 1) / 2; ++j)
        for (int line = 0; line < 2 * kAmxUnits; line += 2)
          __builtin_prefetch(right + j * panel_bytes + kAheadBytes + line * 64, 0, 2);
    }
    left[0].at += left[0].step_bytes;
    left[1].at += left[0].step_bytes;
    right += kPanelStepBytes;
  }
  if (part.rest) {
    // The panel goes on with zeros; the rows do not.
    alignas(64) char rest[row_tiles][kPackedStepBytes];
    const char* from[2] = {left[0].at, left[1].at};
    int64_t stride = left[0].row_bytes;
    if (block.a_group_rows == 0) {
      const int64_t bytes = block.units % kAmxUnits * 4 - (block.a_half_unit ? 2 : 0);
      for (int i = 0; i < row_tiles; ++i) {
        copy_left(left[i], row_counts[i], bytes, rest[i]);
        from[i] = rest[i];
      }
      stride = kAmxRowBytes;
    }
    step(from[0], from[1], stride);
  }

  const bool plain = !block.out_bfloat16 && block.bias == nullptr && block.residual == nullptr;
  float* into = part.last ? static_cast<float*>(block.out) + row * block.out_stride + column : part.sums;
  int64_t stride = part.last ? block.out_stride : part.sums_stride;
  const bool direct = !part.last || (plain && whole);
  if (!direct) into = sums, stride = Tiles::columns;
  Tiles::each([&](auto tile, auto i, auto j) __attribute__((always_inline)) {
    store_amx<decltype(tile)::value>(into + decltype(i)::value * kAmxRows * stride + decltype(j)::value * kAmxColumns,
                                     stride * 4);
  });
  if (!direct) {
    waiting.finish(waiting.rows());
    waiting.add(row, rows, column, columns, Tiles::columns);
  }
}

/// The tiles of one or two row tiles that `columns` columns need, which are `most` at the most.
template <int row_tiles, int most, bool rows_pass>
FORETOKEN_INLINE void multiply_amx_columns(const Block& block, const Part& part, int64_t row, int rows, int64_t column,
                                           int64_t columns, Waiting& waiting) {
  if constexpr (most > 1) {
    if (columns <= (most - 1) * kAmxColumns) {
      return multiply_amx_columns<row_tiles, most - 1, rows_pass>(block, part, row, rows, column, columns, waiting);
    }
  }
  multiply_amx_tile<row_tiles, most, rows_pass>(block, part, row, rows, column, columns, waiting);
}

/// Few rows go through all panels, which come from afar.
template <int row_tiles>
FORETOKEN_INLINE void multiply_few_rows(const Block& block, int64_t row, int rows) {
  constexpr int most = 4 / row_tiles;
  const int64_t steps = block.units / kAmxUnits;
  Waiting waiting(block);
  Part part = {0, steps, block.units % kAmxUnits != 0, nullptr, block.start_stride, true, nullptr, 0, nullptr};
  for (int64_t column = block.column_begin; column < block.column_end; column += most * kAmxColumns) {
    const int64_t left = block.column_end - column, columns = left < most * kAmxColumns ? left : most * kAmxColumns;
    part.start = moved(block.start, row * block.start_stride + column);
    multiply_amx_columns<row_tiles, most, false>(block, part, row, rows, column, columns, waiting);
  }
}

/// Many rows by one panel, part by part of K.
__attribute__((noinline)) void multiply_panel(const Block& block, TileRows& tile_rows, Waiting& waiting, int64_t begin,
                                              int64_t end, int64_t column) {
  const int64_t left = block.column_end - column, columns = left < kPanelColumns ? left : kPanelColumns;
  const int64_t steps = block.units / kAmxUnits, parts = steps > 0 ? (steps + kStepsOfAPart - 1) / kStepsOfAPart : 1;
  alignas(64) float partial[kWaitingRows * kPanelColumns];
  for (int64_t some = begin; some < end; some += kWaitingRows) {
    const int64_t some_end = end - some < kWaitingRows ? end : some + kWaitingRows;
    for (int64_t index = 0; index < parts; ++index) {
      Part part;
      part.first_step = steps * index / parts;
      part.steps = steps * (index + 1) / parts - part.first_step;
      part.last = index + 1 == parts;
      part.rest = part.last && block.units % kAmxUnits != 0;
      part.start_stride = index == 0 ? block.start_stride : kPanelColumns;
      part.sums_stride = kPanelColumns;
      for (int64_t row = some; row < some_end; row += 2 * kAmxRows) {
        const int64_t rows_left = some_end - row;
        const int rows = static_cast<int>(rows_left < 2 * kAmxRows ? rows_left : 2 * kAmxRows);
        part.sums = partial + (row - some) * kPanelColumns;
        part.next_start = nullptr;
        if (index == 0 && block.start != nullptr) {
          part.next_start = rows_left > 2 * kAmxRows ? block.start + (row + 2 * kAmxRows) * block.start_stride + column
                                                     : block.start + some * block.start_stride + column + kPanelColumns;
        }
        part.start = index == 0 ? moved(block.start, row * block.start_stride + column) : part.sums;
        if (rows > kAmxRows) {
          tile_rows.set(kAmxRows, rows - kAmxRows);
          multiply_amx_columns<2, 2, true>(block, part, row, rows, column, columns, waiting);
        } else {
          tile_rows.set(rows, 0);
          multiply_amx_columns<1, 2, true>(block, part, row, rows, column, columns, waiting);
        }
      }
    }
  }
}

void multiply_block_amx(const Block& block) {
  TileRows tile_rows;
  const int64_t rows = block.row_end - block.row_begin;
  if (rows <= 0) return;
  if (rows <= kAmxRows) {
    tile_rows.set(static_cast<int>(rows), 0);
    return multiply_few_rows<1>(block, block.row_begin, static_cast<int>(rows));
  }
  if (rows <= 2 * kAmxRows) {
    tile_rows.set(kAmxRows, static_cast<int>(rows) - kAmxRows);
    return multiply_few_rows<2>(block, block.row_begin, static_cast<int>(rows));
  }
  Waiting waiting(block);
  const int64_t row_bytes = block.units > 0 ? block.units * 4 : 4;
  int64_t step = kRowBytes / row_bytes / kWaitingRows * kWaitingRows;
  if (step < kWaitingRows) step = kWaitingRows;
  for (int64_t begin = block.row_begin; begin < block.row_end; begin += step) {
    const int64_t end = block.row_end - begin < step ? block.row_end : begin + step;
    for (int64_t column = block.column_begin; column < block.column_end; column += kPanelColumns) {
      multiply_panel(block, tile_rows, waiting, begin, end, column);
    }
  }
}

/// Zeros to the end of the panels' last step, where the matrix ends within it.
void end_panels(const PackJob& job) {
  const int64_t units = (job.k_end - job.k_begin + 1) / 2, missing = (kAmxUnits - units % kAmxUnits) % kAmxUnits;
  if (missing == 0) return;
  char* end = job.into + (job.k_begin / 2 + units) * job.width * 4;
  for (int64_t column = job.column_begin; column < job.column_end; column += job.width, end += job.panel_bytes) {
    __builtin_memset(end, 0, static_cast<size_t>(missing * job.width * 4));
  }
}

void pack_right(const PackJob& job) {
  pack_block<PairedBFloat16>(job);
  end_panels(job);
}

/// As a right operand, and then each tile of it on its side.
void pack_left(const PackJob& job) {
  pack_right(job);
  const int64_t steps = ((job.k_end - job.k_begin + 1) / 2 + kAmxUnits - 1) / kAmxUnits;
  char* group = job.into;
  for (int64_t column = job.column_begin; column < job.column_end; column += job.width, group += job.panel_bytes) {
    for (int64_t step = 0; step < steps; ++step) {
      char* const tile = group + step * kPackedStepBytes;
      PairedBFloat16::Words square[kAmxUnits];
#pragma GCC unroll 16
      for (int u = 0; u < kAmxUnits; ++u) square[u] = load<PairedBFloat16::Words>(tile + u * kAmxRowBytes);
      transpose_square(square);
#pragma GCC unroll 16
      for (int r = 0; r < kAmxRows; ++r) store(tile + r * kAmxRowBytes, square[r]);
    }
  }
}

}  // namespace

const Matmul kMatmulAmx = {Isa::Amx, kernels_of<Float32<Vectors512>>(),
                           {2 * kAmxRows, kPanelColumns, kAmxRows, kShareRows, kAmxUnits, multiply_block_amx, pack_right, pack_left}};

}  // namespace foretoken::cpu
