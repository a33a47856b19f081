#include "backend/cuda/attention_backward.h"

namespace foretoken::cuda {

namespace {

// Consumer GPUs have 99 KB of shared memory for a block: where steps of 32 keys take more, there are kernels for 16, too.
template <typename T, int Columns, int Keys>
struct QueryShape {
  static constexpr bool kWide = sizeof(T) == 4 && Columns > 128;
  static constexpr int kThreads = kWide ? 64 : kAttentionThreads;
  static constexpr int kStrips = sizeof(T) == 2 && Columns <= 128 ? 2 : 1;
  static constexpr int kRows = kThreads / kWarp * kStrips * 16;
  static constexpr int kKeys = Keys;  // of a step; aligned to absolute positions
  static constexpr int kStride = kTileStride<T, Columns>;
  static constexpr std::size_t kSharedBytes = sizeof(T) * kStride * (2 * kRows + 2 * 2 * kKeys);
  static_assert(kSharedBytes <= 163 * 1024, "sm_80 has no more");
};

// dq of the packed rows of a tile: over positions upwards, those of a step by multiply_columns onto the sum so far.
// Blocks: tiles of runs; bands: kv heads. Keys and values of the next step are loaded meanwhile.
template <typename T, int Columns, int Keys>
FORETOKEN_KERNEL void FORETOKEN_BOUNDS((QueryShape<T, Columns, Keys>::kThreads))
    attention_backward_q_kernel(BackwardCall<T> call, Matrix<float> dq) {
  using Shape = QueryShape<T, Columns, Keys>;
  constexpr int Strips = Shape::kStrips, panels = Shape::kKeys / 16, stride = Shape::kStride;
  const std::int64_t tile_index = block_index();
  if (tile_index >= call.tiles[call.paths.runs_count]) return;
  const std::int64_t run_index = call.run_of(tile_index);
  const int group = call.group(), kv_head = band_index(), D = call.shape.head_dim;
  const RowTile tile = RowTile::of(call.paths.runs[run_index], static_cast<int>(tile_index - call.tiles[run_index]),
                                   Shape::kRows, group, kv_head, call.shape.window);

  T* queries = shared_memory<T>();
  T* upstream = queries + Shape::kRows * stride;
  T* stages = upstream + Shape::kRows * stride;  // keys and values, twice
  const std::int32_t* row_at = call.paths.path_rows + call.paths.path_begin[run_index];
  const float scale = call.shape.scale, scale2 = scale * kLog2E;
  const int first = tile.first_seen() / Shape::kKeys * Shape::kKeys, last = tile.last_position();

  const auto load_step = [&](int position, int slot) {
    T* keys = stages + slot * 2 * Shape::kKeys * stride;
    load_rows<Columns>(keys, Shape::kKeys, D, call.whole(call.k, D), call.k.data, [&](int r) {
      return position + r <= last ? call.k.row(row_at[position + r]) + kv_head * D : nullptr;
    });
    load_rows<Columns>(keys + Shape::kKeys * stride, Shape::kKeys, D, call.whole(call.v, D), call.v.data, [&](int r) {
      return position + r <= last ? call.v.row(row_at[position + r]) + kv_head * D : nullptr;
    });
  };
  load_rows<Columns>(queries, Shape::kRows, D, call.whole(call.q, D), call.q.data, [&](int r) {
    return r < tile.rows ? call.q.row(tile.batch_row(r)) + tile.head(r) * D : nullptr;
  });
  load_rows<Columns>(upstream, Shape::kRows, D, call.whole(call.upstream, D), call.upstream.data, [&](int r) {
    return r < tile.rows ? call.upstream.row(tile.batch_row(r)) + tile.head(r) * D : nullptr;
  });
  load_step(first, 0);
  commit_copies();

  const int warp_row = warp_index() * Strips * 16;
  const int warp_rows = min_of(tile.rows - warp_row, Strips * 16);
  const Sight low = tile.sight(warp_row), high = tile.sight(warp_row + max_of(warp_rows, 1) - 1);
  float lse2[Strips][2], delta[Strips][2];
#pragma unroll
  for (int s = 0; s < Strips; ++s)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = warp_row + tile_row(s, half);
      const bool there = row < tile.rows;
      lse2[s][half] = there ? call.lse.row(tile.batch_row(row))[tile.head(row)] * kLog2E : 0.0f;
      delta[s][half] = there ? call.delta[tile.batch_row(row) * call.shape.heads + tile.head(row)] : 0.0f;
    }

  float total[Columns / 16][Strips][2][4] = {};
  int slot = 0;
  for (int position = first; position <= last; position += Shape::kKeys, slot ^= 1) {
    wait_copies<0>();
    sync_block();  // the step's keys are there, and nobody reads those of the step before any more
    if (position + Shape::kKeys <= last) load_step(position + Shape::kKeys, slot ^ 1);
    commit_copies();
    if (warp_rows <= 0 || high.last < position || low.first >= position + Shape::kKeys) continue;

    const T* keys = stages + slot * 2 * Shape::kKeys * stride;
    float weights[panels][Strips][2][4] = {}, gradients[panels][Strips][2][4] = {};
    multiply_rows<Columns>(queries + warp_row * stride, keys, weights);
    multiply_rows<Columns>(upstream + warp_row * stride, keys + Shape::kKeys * stride, gradients);
    const bool whole = high.first <= position && position + Shape::kKeys - 1 <= low.last;
    Factor<T> factors[panels][Strips];
#pragma unroll
    for (int s = 0; s < Strips; ++s) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const Sight seen = whole ? Sight{0, last} : tile.sight(warp_row + tile_row(s, half));
#pragma unroll
        for (int p = 0; p < panels; ++p)
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const float score = weights[p][s][i / 2][2 * half + i % 2];
            const float weight = seen.sees(position + tile_column(p, i / 2, i % 2))
                                     ? exp2_fast(fmaf(score, scale2, -lse2[s][half])) : 0.0f;
            float& x = gradients[p][s][i / 2][2 * half + i % 2];
            x = scale * weight * (x - delta[s][half]);
          }
      }
#pragma unroll
      for (int p = 0; p < panels; ++p) factors[p][s] = factor_of<T>(gradients[p][s]);
    }
#pragma unroll
    for (int p = 0; p < Columns / 16; ++p) {
      limit_prefetch();
      multiply_columns<Columns>(factors, keys + 16 * p, total[p]);
    }
  }
  wait_copies<0>();

#pragma unroll
  for (int s = 0; s < Strips; ++s)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = warp_row + tile_row(s, half);
      if (row >= tile.rows) continue;
      float* target = dq.row(tile.batch_row(row)) + tile.head(row) * D;
#pragma unroll
      for (int p = 0; p < Columns / 16; ++p)
#pragma unroll
        for (int t = 0; t < 2; ++t)
          store_pair(target, tile_column(p, t, 0), D, total[p][s][t][2 * half], total[p][s][t][2 * half + 1]);
    }
}

template <typename T, int Columns, int Keys>
void launch_with_keys(Device& device, BackwardCall<T> call, std::int64_t rows, std::int32_t* tiles, Matrix<float> dq) {
  using Shape = QueryShape<T, Columns, Keys>;
  const std::int64_t blocks = launch_run_tiles(device, call.paths, rows, call.group(), Shape::kRows, tiles);
  call.tiles = tiles;
  FORETOKEN_LAUNCH(device, (attention_backward_q_kernel<T, Columns, Keys>),
                   (Grid{blocks, Shape::kThreads, Shape::kSharedBytes, call.shape.kv_heads}), call, dq);
}

}  // namespace

template <typename T>
void launch_attention_backward_q(Device& device, BackwardCall<T> call, std::int64_t rows, std::int32_t* tiles,
                                 Matrix<float> dq) {
  with_columns(call.shape.head_dim, [&](auto columns) {
    constexpr int count = decltype(columns)::value;
    // A step's keys are added sixteen at a time in either case: the bits are the same.
    if constexpr (sizeof(T) == 4 && count > 128) {
      launch_with_keys<T, count, 16>(device, call, rows, tiles, dq);
    } else {
      if constexpr (QueryShape<T, count, 32>::kSharedBytes > 99 * 1024)
        if (QueryShape<T, count, 32>::kSharedBytes > device.shared_bytes())
          return launch_with_keys<T, count, 16>(device, call, rows, tiles, dq);
      launch_with_keys<T, count, 32>(device, call, rows, tiles, dq);
    }
  });
}

template void launch_attention_backward_q(Device&, BackwardCall<float>, std::int64_t, std::int32_t*, Matrix<float>);
template void launch_attention_backward_q(Device&, BackwardCall<BFloat16>, std::int64_t, std::int32_t*, Matrix<float>);

}  // namespace foretoken::cuda
