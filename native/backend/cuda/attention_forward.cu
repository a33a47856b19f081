#include "backend/cuda/attention_forward.h"

#include "backend/cuda/cuda_backend.h"

namespace foretoken::cuda {

namespace {

template <typename T, int Columns>
struct TileShape {
  static constexpr int kThreads = sizeof(T) == 4 && Columns > 128 ? 64 : kAttentionThreads;  // for shared memory's sake
  static constexpr int kStrips = sizeof(T) == 2 && Columns <= 128 ? 2 : 1;  // more would not fit into the registers
  static constexpr int kRows = kThreads / kWarp * kStrips * 16;
  static constexpr int kStride = kTileStride<T, Columns>;
  static constexpr std::size_t kSharedBytes = sizeof(T) * kStride * (kRows + 2 * kPagePositions);
  static_assert(kSharedBytes <= 163 * 1024, "sm_80 has no more");
};

// Page after page, as absolute positions go: s_j = q · k_j, m' = the page's greatest s, p_j = exp(scale · (s_j − m')),
// share = Σ p_j · v_j within the page, p rounded to T; then with m the greatest so far
//   out = out · exp(scale · (m_before − m)) + share · exp(scale · (m' − m)), and the same for Σ p.
// A page's share depends on nothing but the row and the page, and pages are added in order: whether a row is computed
// here, alone or along with others, or by attention_decode.cu, its pages one after the other or at the same time, the
// bits are the same. A page that a row does not see adds zeros.
//
// Blocks: tiles of kRows packed rows, late ones (the long paths) first; bands: kv heads. A warp has its own rows.
// K of the next page is loaded while P · V is computed, V while the scores are.
template <typename T, int Columns>
FORETOKEN_KERNEL void FORETOKEN_BOUNDS((TileShape<T, Columns>::kThreads))
    attention_forward_kernel(ForwardCall<T> call, std::int64_t most_tiles) {
  using Shape = TileShape<T, Columns>;
  constexpr int Strips = Shape::kStrips, panels = kPagePositions / 16;
  const std::int64_t tile_index = most_tiles - 1 - block_index() / call.paths.runs_count;
  const RowTile tile = row_tile(call, block_index() % call.paths.runs_count, tile_index, band_index(), Shape::kRows);
  if (tile.rows <= 0 || call.decodes(tile.run.count)) return;

  T* queries = shared_memory<T>();
  T* keys = queries + Shape::kRows * Shape::kStride;
  T* values = keys + kPagePositions * Shape::kStride;
  const std::int32_t* table = call.paths.tables + tile.run.table * call.paths.table_stride;
  const float scale2 = call.shape.scale * kLog2E;
  const int first_page = tile.first_seen() / kPagePositions, last_page = tile.last_position() / kPagePositions;

  const int warp_row = warp_index() * Strips * 16;
  // Found anew where a page needs it: the registers are full.
  const auto sight = [&](int s, int half) { return tile.sight(warp_row + tile_row(s, half)); };
  // Pages that some row of the warp sees, and those that all rows see whole.
  const int warp_rows = min_of(tile.rows - warp_row, Strips * 16);
  const Sight low = tile.sight(warp_row), high = tile.sight(warp_row + max_of(warp_rows, 1) - 1);
  const int seen_from = low.first / kPagePositions, seen_to = warp_rows > 0 ? high.last / kPagePositions : -1;
  const int whole_from = (high.first + kPagePositions - 1) / kPagePositions;
  const int whole_to = warp_rows == Strips * 16 ? (low.last + 1) / kPagePositions - 1 : -1;

  float total[Columns / 16][Strips][2][4] = {};
  RowSums<Strips> sums;
#pragma unroll
  for (int s = 0; s < Strips; ++s)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      sums.greatest[s][half] = -INFINITY;
      sums.sum[s][half] = 0;
    }

  std::int32_t page = table[first_page];
  load_queries<Columns>(call, tile, Shape::kRows, queries);
  load_page<Columns>(call, tile, call.layout.keys(call.pages, page, tile.kv_head), first_page * kPagePositions, keys);
  commit_copies();
  for (int b = first_page; b <= last_page; ++b) {
    const int position = b * kPagePositions;
    wait_copies<0>();
    sync_block();  // the keys are there, and nobody reads the values any more
    load_page<Columns>(call, tile, call.layout.values(call.pages, page, tile.kv_head), position, values);
    commit_copies();
    if (b < last_page) page = table[b + 1];

    const bool seen = seen_from <= b && b <= seen_to, whole = whole_from <= b && b <= whole_to;
    float scores[panels][Strips][2][4] = {};
    if (seen) multiply_rows<Columns>(queries + warp_row * Shape::kStride, keys, scores);
    wait_copies<0>();
    sync_block();  // the values are there, and nobody reads the keys any more
    if (b < last_page)
      load_page<Columns>(call, tile, call.layout.keys(call.pages, page, tile.kv_head), position + kPagePositions, keys);
    commit_copies();
    if (!seen) continue;

    limit_prefetch();
    const RowSums<Strips> share = softmax_tile(scores, position, whole, sight, scale2);
    Merge merge[Strips][2];
#pragma unroll
    for (int s = 0; s < Strips; ++s)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        merge[s][half] = Merge::of(sums.greatest[s][half], share.greatest[s][half], scale2);
        merge[s][half].apply(sums.sum[s][half], share.sum[s][half]);
      }
    Factor<T> weights[panels][Strips];
#pragma unroll
    for (int p = 0; p < panels; ++p)
#pragma unroll
      for (int s = 0; s < Strips; ++s) weights[p][s] = factor_of<T>(scores[p][s]);
#pragma unroll
    for (int p = 0; p < Columns / 16; ++p) {
      float mix[Strips][2][4] = {};
      if (p % 2 == 0 || sizeof(T) == 4) limit_prefetch();
      multiply_columns<Columns>(weights, values + 16 * p, mix);
#pragma unroll
      for (int s = 0; s < Strips; ++s)
#pragma unroll
        for (int i = 0; i < 8; ++i) merge[s][i % 4 / 2].apply(total[p][s][i / 4][i % 4], mix[s][i / 4][i % 4]);
    }
  }
  wait_copies<0>();

  // The warp's results take the place of its queries, from where they go out in whole words.
  const int D = call.shape.head_dim;
  T* results = queries + warp_row * Shape::kStride;
  sync_warp();
#pragma unroll
  for (int s = 0; s < Strips; ++s)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float sum = sums.sum[s][half], inverse = 1 / sum;
#pragma unroll
      for (int p = 0; p < Columns / 16; ++p)
#pragma unroll
        for (int i = 0; i < 4; ++i)
          results[tile_row(s, half) * Shape::kStride + tile_column(p, i / 2, i % 2)] =
              narrow<T>(total[p][s][i / 2][2 * half + i % 2] * inverse);
      const int row = warp_row + tile_row(s, half);
      if (call.lse.data && lane_index() % 4 == 0 && row < tile.rows)
        call.lse.row(tile.batch_row(row))[tile.head(row)] = fmaf(sums.greatest[s][half], call.shape.scale, logf(sum));
    }
  sync_warp();
  store_rows<Columns>(results, warp_rows, lane_index(), kWarp, D, call.out.aligned && D % kWordElements<T> == 0, [&](int r) {
    return call.out.row(tile.batch_row(warp_row + r)) + tile.head(warp_row + r) * D;
  });
}

}  // namespace

void CudaBackend::attention_forward(View q, const void* pages, const PagedPaths& paths, const AttentionShape& shape,
                                    View out, View lse) {
  invariant(shape.scale > 0, "attention multiplies scores by a positive number");
  const DecodePlan plan = plan_attention_decode(*device_, paths, shape);
  float* partials = static_cast<float*>(scratch(static_cast<std::size_t>(plan.partial_floats) * sizeof(float)));
  with_type(dtype_, [&](auto t) {
    using T = decltype(t);
    const ForwardCall<T> call{matrix<const T>(q), static_cast<const T*>(pages), paths, shape, page_layout(shape, dtype_),
                              matrix<T>(out), matrix<float>(lse)};
    const bool some_decode = call.decodes(paths.longest_run) || paths.runs_count > 1;
    if (some_decode) launch_attention_decode(*device_, call, partials, plan.splits);
    if (call.decodes(paths.longest_run)) return;
    if constexpr (std::is_same_v<T, BFloat16>)
      if (warpgroup_attention_ && launch_attention_forward_sm90(*device_, call)) return;
    with_columns(shape.head_dim, [&](auto columns) {
      using Shape = TileShape<T, decltype(columns)::value>;
      const std::int64_t tiles = (paths.longest_run * call.group() + Shape::kRows - 1) / Shape::kRows;
      FORETOKEN_LAUNCH(*device_, (attention_forward_kernel<T, decltype(columns)::value>),
                       (Grid{paths.runs_count * tiles, Shape::kThreads, Shape::kSharedBytes, shape.kv_heads}), call, tiles);
    });
  });
}

}  // namespace foretoken::cuda
