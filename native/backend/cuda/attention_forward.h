#pragma once

#include "backend/cuda/attention_tiles.h"

namespace foretoken::cuda {

/// What the kernels of attention_forward are given.
template <typename T>
struct ForwardCall {
  Matrix<const T> q;
  const T* pages;
  PagedPaths paths;
  AttentionShape shape;
  PageLayout layout;
  Matrix<T> out;
  Matrix<float> lse;  // data null: not wanted

  FORETOKEN_EITHER int group() const { return shape.heads / shape.kv_heads; }
  /// Whether decode kernels take the run, rather than those for many rows; the same bits come of both.
  FORETOKEN_EITHER bool decodes(std::int64_t rows) const { return rows == 1 || rows * group() <= 16; }
};

template <typename T>
FORETOKEN_DEVICE RowTile row_tile(const ForwardCall<T>& call, std::int64_t run, std::int64_t tile, int kv_head, int most_rows) {
  return RowTile::of(call.paths.runs[run], static_cast<int>(tile), most_rows, call.group(), kv_head, call.shape.window);
}

template <int Columns, typename T>
FORETOKEN_DEVICE void load_queries(const ForwardCall<T>& call, const RowTile& tile, int rows, T* to) {
  const int D = call.shape.head_dim;
  load_rows<Columns>(to, rows, D, call.q.aligned && D % kWordElements<T> == 0, call.q.data, [&](int r) {
    return r < tile.rows ? call.q.row(tile.batch_row(r)) + tile.head(r) * D : nullptr;
  });
}

/// Keys (or values) of a page that starts at `position`, zeros for what comes after the tile's last row.
template <int Columns, typename T>
FORETOKEN_DEVICE void load_page(const ForwardCall<T>& call, const RowTile& tile, const T* page, int position, T* to) {
  const int last = tile.last_position() - position;
  load_rows<Columns>(to, kPagePositions, call.shape.head_dim, true, page, [&](int lane) {
    return lane <= last ? page + lane * call.layout.row : nullptr;
  });
}

/// Computes the runs that `decodes` says it takes, others not at all. `partials` is for shares of pages, where a path is
/// divided among blocks.
template <typename T>
void launch_attention_decode(Device& device, const ForwardCall<T>& call, float* partials, int splits);

/// The other runs on warpgroup products, in bfloat16; false, having done nothing, for heads too large.
bool launch_attention_forward_sm90(Device& device, const ForwardCall<BFloat16>& call);

/// Into how many parts the paths should be divided so that every multiprocessor has work, and the floats that takes.
struct DecodePlan {
  int splits;
  std::int64_t partial_floats;
};
DecodePlan plan_attention_decode(const Device& device, const PagedPaths& paths, const AttentionShape& shape);
/// The most partial_floats of any plan for up to so many runs and positions.
std::int64_t most_partial_floats(const Device& device, std::int64_t runs, std::int64_t longest_path, const AttentionShape& shape);

}  // namespace foretoken::cuda
