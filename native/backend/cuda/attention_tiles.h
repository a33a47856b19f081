#pragma once

#include "backend/cuda/device/exp2.h"
#include "backend/cuda/device/launch.h"
#include "backend/cuda/device/mma.h"
#include "backend/cuda/pages.h"

// What the attention kernels have in common. A tile's rows are (row of the batch, query head) pairs of one run and one kv
// head, heads within rows: packed row i is row i / group of the run and head i mod group of the kv head's group, so that
// the heads of a group share the loads of keys, in decoding, too.
namespace foretoken::cuda {

inline constexpr int kAttentionThreads = 128;
inline constexpr int kAttentionWarps = kAttentionThreads / kWarp;
inline constexpr int kMostHeadDim = 256;

/// Calls body(integral_constant) with the columns that the tiles of such heads have; those beyond D are zeros.
template <typename Body>
void with_columns(int head_dim, const Body& body) {
  if (head_dim <= 32) body(std::integral_constant<int, 32>());
  else if (head_dim <= 64) body(std::integral_constant<int, 64>());
  else if (head_dim <= 80) body(std::integral_constant<int, 80>());
  else if (head_dim <= 96) body(std::integral_constant<int, 96>());
  else if (head_dim <= 128) body(std::integral_constant<int, 128>());
  else if (head_dim <= kMostHeadDim) body(std::integral_constant<int, kMostHeadDim>());
  else fail(ErrorCode::UnsupportedConfig, "the GPU has kernels for heads of up to ", kMostHeadDim, " columns, not for ", head_dim);
}

/// The first position that a token at `position` sees.
FORETOKEN_EITHER int first_visible(int position, int window) {
  return window > 0 && position >= window ? position - window + 1 : 0;
}

/// Rows of a tile in shared memory become the rows that source(r) points to, zeros where that is null.
template <int Columns, typename T, typename Source>
FORETOKEN_DEVICE void load_rows(T* tile, int rows, int head_dim, bool aligned, const T* somewhere, const Source& source) {
  constexpr int word = kWordElements<T>, words = Columns / word;
  const auto copy = [&](int r, int column) {
    const T* row = source(r);
    copy_row_word(tile + r * kTileStride<T, Columns> + column, row ? row : somewhere, column, head_dim, row != nullptr, aligned);
  };
  // Rolled: unrolled, the addresses of all rounds would be kept in registers.
  if constexpr (kAttentionThreads / 2 % words == 0) {  // a thread keeps to its column
    const int column = thread_index() % words * word;
#pragma unroll 1
    for (int r = thread_index() / words; r < rows; r += block_threads() / words) copy(r, column);
  } else {
#pragma unroll 1
    for (int i = thread_index(); i < rows * words; i += block_threads()) copy(i / words, i % words * word);
  }
}

/// Rows of a tile in shared memory go to target(r), the work shared by `threads` threads.
template <int Columns, typename T, typename Target>
FORETOKEN_DEVICE void store_rows(const T* tile, int rows, int thread, int threads, int head_dim, bool aligned,
                                 const Target& target) {
  constexpr int word = kWordElements<T>;
  const int words = (head_dim + word - 1) / word;
  for (int i = thread; i < rows * words; i += threads) {
    const int r = i / words, column = i % words * word;
    const T* from = tile + r * kTileStride<T, Columns> + column;
    T* to = target(r) + column;
    if (aligned) {
      *reinterpret_cast<Words*>(to) = *reinterpret_cast<const Words*>(from);
    } else {
      for (int j = 0; j < word && column + j < head_dim; ++j) to[j] = from[j];
    }
  }
}

/// Positions [first, last] of the path that a row sees; none where last < first.
struct Sight {
  int first, last;

  FORETOKEN_DEVICE bool sees(int position) const { return first <= position && position <= last; }
};

/// Rows [begin, begin + rows) of a run's packed rows, for one kv head.
struct RowTile {
  Run run;
  int group, kv_head, window;
  int begin, rows;

  /// Tile `index` of the run; it may have no rows.
  FORETOKEN_DEVICE static RowTile of(const Run& run, int index, int most_rows, int group, int kv_head, int window) {
    const int begin = index * most_rows;
    return {run, group, kv_head, window, begin, min_of(most_rows, run.count * group - begin)};
  }
  FORETOKEN_DEVICE int position(int row) const { return run.position + (begin + row) / group; }
  FORETOKEN_DEVICE int last_position() const { return position(rows - 1); }
  FORETOKEN_DEVICE int first_seen() const { return first_visible(position(0), window); }
  FORETOKEN_DEVICE std::int64_t batch_row(int row) const { return run.row + (begin + row) / group; }
  FORETOKEN_DEVICE int head(int row) const { return kv_head * group + (begin + row) % group; }
  /// Rows beyond the end see nothing.
  FORETOKEN_DEVICE Sight sight(int row) const {
    if (row >= rows) return {0, -1};
    const int last = position(row);
    return {first_visible(last, window), last};
  }
};

/// The greatest scores and sums of exponentials of the rows that a lane has a share of.
template <int Strips>
struct RowSums {
  float greatest[Strips][2], sum[Strips][2];
};

/// Scores of 16 · Panels positions from `position` on become p_j = exp(scale · (s_j − greatest of these)), zero where a row
/// does not see the position (sight(strip, half) tells; `whole`: every row sees all of them); scale2 = scale · log₂ e.
/// Returned are the greatest of these scores and the sum of the p: a lane's own by increasing position, then
/// combine_rows.
template <int Panels, int Strips, typename SightOf>
FORETOKEN_DEVICE RowSums<Strips> softmax_tile(float (&c)[Panels][Strips][2][4], int position, bool whole,
                                              const SightOf& sight, float scale2) {
  if (!whole) {
#pragma unroll
    for (int s = 0; s < Strips; ++s)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const Sight seen = sight(s, half);
#pragma unroll
        for (int p = 0; p < Panels; ++p)
#pragma unroll
          for (int i = 0; i < 4; ++i)
            if (!seen.sees(position + tile_column(p, i / 2, i % 2))) c[p][s][i / 2][2 * half + i % 2] = -INFINITY;
      }
  }
  RowSums<Strips> tile;
#pragma unroll
  for (int s = 0; s < Strips; ++s)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float greatest = -INFINITY;
#pragma unroll
      for (int p = 0; p < Panels; ++p)
#pragma unroll
        for (int i = 0; i < 4; ++i) greatest = fmaxf(greatest, c[p][s][i / 2][2 * half + i % 2]);
      tile.greatest[s][half] = greatest;
    }
  combine_rows(tile.greatest, QuadGreatest());
#pragma unroll
  for (int s = 0; s < Strips; ++s)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float greatest = tile.greatest[s][half];
      const float shift = greatest == -INFINITY ? 0.0f : -greatest * scale2;
      float sum = 0;
#pragma unroll
      for (int p = 0; p < Panels; ++p)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float& x = c[p][s][i / 2][2 * half + i % 2];
          x = exp2_fast(fmaf(x, scale2, shift));
          sum += x;
        }
      tile.sum[s][half] = sum;
    }
  combine_rows(tile.sum, QuadAdd());
  return tile;
}

/// How a page's share is added to what earlier pages gave: total = keep · total + add · share.
struct Merge {
  float keep, add;

  /// Of shares relative to exp(scale · total_greatest) and exp(scale · greatest); total_greatest becomes the greater one.
  FORETOKEN_DEVICE static Merge of(float& total_greatest, float greatest, float scale2) {
    const float both = fmaxf(total_greatest, greatest), base = both == -INFINITY ? 0.0f : both;
    const Merge merge{exp2_fast((total_greatest - base) * scale2), exp2_fast((greatest - base) * scale2)};
    total_greatest = both;
    return merge;
  }
  FORETOKEN_DEVICE void apply(float& total, float share) const { total = fmaf(add, share, keep * total); }
};

}  // namespace foretoken::cuda
