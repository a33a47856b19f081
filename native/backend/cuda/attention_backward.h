#pragma once

#include "backend/cuda/attention_tiles.h"

namespace foretoken::cuda {

/// The last i < count with begins[i] <= x; begins do not fall and begin with one that is not after x.
FORETOKEN_DEVICE std::int64_t last_not_after(const std::int32_t* begins, std::int64_t count, std::int64_t x) {
  std::int64_t low = 0, high = count;
  while (high - low > 1) {
    const std::int64_t middle = (low + high) / 2;
    (begins[middle] <= x ? low : high) = middle;
  }
  return low;
}

/// What the kernels of attention_backward are given.
template <typename T>
struct BackwardCall {
  Matrix<const T> q, k, v, upstream;  // upstream: dout
  Matrix<const float> lse;
  const float* delta;         // (N, H)
  PackedPaths paths;
  AttentionShape shape;
  const std::int32_t* tiles;  // (runs_count + 1) the first tile of each run, for the kernel that is called

  FORETOKEN_EITHER int group() const { return shape.heads / shape.kv_heads; }
  /// Whether rows that begin at multiples of `head` elements are aligned to words.
  FORETOKEN_DEVICE static bool whole(const Matrix<const T>& x, int head) { return x.aligned && head % kWordElements<T> == 0; }
  /// The run that tile `tile` belongs to.
  FORETOKEN_DEVICE std::int64_t run_of(std::int64_t tile) const { return last_not_after(tiles, paths.runs_count, tile); }
};

/// Two neighbours of a row, as far as it has these columns.
FORETOKEN_DEVICE void store_pair(float* row, int column, int columns, float a, float b) {
  if (column < columns) row[column] = a;
  if (column + 1 < columns) row[column + 1] = b;
}

/// Memory for the kernels of dk and dv.
struct KeyScratch {
  int most_slots = 0;
  std::int64_t most_tiles = 0, sums_floats = 0;
  std::int32_t* tiles = nullptr;  // (runs_count + 1)
  std::int32_t* items = nullptr;  // (most_tiles + 1)
  std::int32_t* slots = nullptr;  // (most_tiles)
  float* sums = nullptr;          // (sums_floats)
};
/// How much of it, where `warpgroups` multiply or warps; the pointers are the caller's to set.
template <typename T>
KeyScratch key_scratch(const AttentionShape& shape, std::int64_t rows, std::int64_t runs_count, bool warpgroups);

/// All scratch of attention_backward.
template <typename T>
std::size_t attention_backward_bytes(const AttentionShape& shape, std::int64_t rows, std::int64_t runs_count, bool warpgroups);

/// dq, dk and dv, overwritten; `rows` is N. tiles: (runs_count + 1) of scratch.
template <typename T>
void launch_attention_backward_q(Device& device, BackwardCall<T> call, std::int64_t rows, std::int32_t* tiles,
                                 Matrix<float> dq);
void launch_attention_backward_q_sm90(Device& device, BackwardCall<BFloat16> call, std::int64_t rows, std::int32_t* tiles,
                                      Matrix<float> dq);
template <typename T>
void launch_attention_backward_kv(Device& device, BackwardCall<T> call, std::int64_t rows, KeyScratch scratch, bool warpgroups,
                                  Matrix<float> dk, Matrix<float> dv);

/// Divides each run into tiles of `tile_rows` of its count · per_row packed rows; returns how many tiles there are at most.
std::int64_t launch_run_tiles(Device& device, const PackedPaths& paths, std::int64_t rows, int per_row, int tile_rows,
                              std::int32_t* tiles);

}  // namespace foretoken::cuda
