#pragma once

#include "backend/cuda/attention_tiles.h"

namespace foretoken::cuda {

/// What the kernels of attention_backward are given.
template <typename T>
struct BackwardCall {
  Matrix<const T> q, k, v;
  Matrix<const T> upstream;   // dout rounded to T, head h from column h · upstream_head on
  int upstream_head;
  Matrix<const float> lse;
  const float* delta;         // (N, H)
  PackedPaths paths;
  AttentionShape shape;
  const std::int32_t* tiles;  // (runs_count + 1) the first tile of each run, for the kernel that is called

  FORETOKEN_EITHER int group() const { return shape.heads / shape.kv_heads; }
  /// Whether rows that begin at multiples of `head` elements are aligned to words.
  FORETOKEN_DEVICE static bool whole(const Matrix<const T>& x, int head) { return x.aligned && head % kWordElements<T> == 0; }
  /// The run that tile `tile` belongs to.
  FORETOKEN_DEVICE std::int64_t run_of(std::int64_t tile) const {
    std::int64_t low = 0, high = paths.runs_count;
    while (high - low > 1) {
      const std::int64_t middle = (low + high) / 2;
      (tiles[middle] <= tile ? low : high) = middle;
    }
    return low;
  }
};

/// Two neighbours of a row, as far as it has these columns.
FORETOKEN_DEVICE void store_pair(float* row, int column, int columns, float a, float b) {
  if (column < columns) row[column] = a;
  if (column + 1 < columns) row[column + 1] = b;
}

/// dq, dk and dv, overwritten; `rows` is N. tiles: (runs_count + 1) of scratch.
template <typename T>
void launch_attention_backward_q(Device& device, BackwardCall<T> call, std::int64_t rows, std::int32_t* tiles,
                                 Matrix<float> dq);
template <typename T>
void launch_attention_backward_kv(Device& device, BackwardCall<T> call, std::int64_t rows, std::int32_t* tiles,
                                  Matrix<float> dk, Matrix<float> dv);

/// Divides each run into tiles of `tile_rows` of its count · per_row packed rows; returns how many tiles there are at most.
std::int64_t launch_run_tiles(Device& device, const PackedPaths& paths, std::int64_t rows, int per_row, int tile_rows,
                              std::int32_t* tiles);

}  // namespace foretoken::cuda
