#include "backend/cuda/attention_backward_keys.h"

namespace foretoken::cuda {

namespace {

constexpr std::size_t kMostPieceBytes = std::size_t{64} << 20;

template <typename T, int Columns>
struct KeyShape {
  static constexpr bool kWide = sizeof(T) == 4 && Columns > 128;
  static constexpr int kThreads = kWide ? 64 : kAttentionThreads;
  static constexpr int kStrips = sizeof(T) == 2 && Columns <= 64 ? 2 : 1;
  static constexpr int kKeys = kThreads / kWarp * kStrips * 16;
  static constexpr int kQueries = kWide ? 16 : 32;         // of a step
  static constexpr int kParts = Columns > 128 ? 2 : 1;     // a block computes one part of the columns of dk and dv
  static constexpr int kPanels = Columns / 16 / kParts;
  static constexpr int kStride = kTileStride<T, Columns>;
  static constexpr std::size_t kSharedBytes = sizeof(T) * kStride * (2 * kKeys + 2 * 2 * kQueries);
  static_assert(kSharedBytes <= 162 * 1024, "sm_80 has no more, and what lies with the queries needs some");
};

// items[t] becomes the number of pieces of tile t; a warp per tile.
template <typename T>
FORETOKEN_KERNEL void attention_count_pieces_kernel(BackwardCall<T> call, int keys, int queries, std::int64_t most_tiles,
                                                    Pieces pieces) {
  const std::int64_t tile = global_index() / kWarp;
  if (tile >= most_tiles) return;
  std::int32_t steps = 0;
  if (tile < call.tiles[call.paths.runs_count])
    for (QuerySteps next = KeyTile::of(call, tile, keys).queries(call); !next.done(); next.find(next.index + 1))
      steps += next.steps(queries);
  if (lane_index() == 0) pieces.items[tile] = (steps + kPieceSteps - 1) / kPieceSteps;
}

/// The sum of what threads with lower numbers have; sums (threads).
FORETOKEN_DEVICE std::int32_t sum_before(std::int32_t mine, std::int32_t* sums) {
  sync_block();
  sums[thread_index()] = mine;
  sync_block();
  std::int32_t before = 0;
  for (int i = 0; i < thread_index(); ++i) before += sums[i];
  return before;
}

// Gives slots to pieces, as long as there are any, and replaces numbers of pieces by their sums. One block.
FORETOKEN_KERNEL void attention_place_pieces_kernel(std::int64_t tiles, Pieces pieces) {
  FORETOKEN_SHARED std::int32_t sums[kAttentionThreads];
  const std::int64_t each = (tiles + kAttentionThreads - 1) / kAttentionThreads;
  const std::int64_t begin = min_of(thread_index() * each, tiles), end = min_of(begin + each, tiles);
  const auto wanted = [&](std::int64_t t) { return pieces.items[t] > 1 ? pieces.items[t] : 0; };
  std::int32_t slots = 0, items = 0;
  for (std::int64_t t = begin; t < end; ++t) slots += wanted(t);
  slots = sum_before(slots, sums);
  for (std::int64_t t = begin; t < end; ++t) {
    const std::int32_t count = wanted(t);
    const bool some = count > 0 && slots + count <= pieces.most_slots;
    pieces.slots[t] = some ? slots : -1;
    if (!some) pieces.items[t] = min_of(pieces.items[t], 1);
    slots += count;
    items += pieces.items[t];
  }
  items = sum_before(items, sums);
  for (std::int64_t t = begin; t < end; ++t) {
    const std::int32_t count = pieces.items[t];
    pieces.items[t] = items;
    items += count;
  }
  if (thread_index() == kAttentionThreads - 1) pieces.items[tiles] = items;
}

// dk and dv of the keys of a tile: over the queries that see them, runs of the tree in order, rows in order, the heads of
// the group in order, those of a step by multiply_columns onto the sum so far. The products are transposed, keys being
// the rows of a warp's strips. Blocks: pieces of tiles of runs; bands: kv heads by parts of the columns. Queries of the
// next step are loaded meanwhile.
template <typename T, int Columns>
FORETOKEN_KERNEL void FORETOKEN_BOUNDS((KeyShape<T, Columns>::kThreads))
    attention_backward_kv_kernel(BackwardCall<T> call, std::int64_t most_tiles, Pieces pieces, Matrix<float> dk, Matrix<float> dv) {
  using Shape = KeyShape<T, Columns>;
  constexpr int Strips = Shape::kStrips, panels = Shape::kQueries / 16, stride = Shape::kStride, queries = Shape::kQueries;
  FORETOKEN_SHARED float lse2s[2][queries], deltas[2][queries];
  FORETOKEN_SHARED int positions[2][queries];
  if (block_index() >= pieces.items[most_tiles]) return;
  const std::int64_t tile_index = last_not_after(pieces.items, most_tiles, block_index());
  const KeyTile tile = KeyTile::of(call, tile_index, Shape::kKeys);
  const int piece = static_cast<int>(block_index() - pieces.items[tile_index]), slot_of_tile = pieces.slots[tile_index];
  const int kv_head = band_index() / Shape::kParts, part = band_index() % Shape::kParts;
  const int D = call.shape.head_dim, heads = call.shape.heads, window = call.shape.window;
  const float scale = call.shape.scale, scale2 = scale * kLog2E;

  T* keys = shared_memory<T>();
  T* values = keys + Shape::kKeys * stride;
  T* stages = values + Shape::kKeys * stride;  // queries and upstream, twice
  QuerySteps next = tile.queries(call);
  next.advance(queries, piece * kPieceSteps);
  int steps = slot_of_tile < 0 ? 0x7fffffff : kPieceSteps;
  const int position = next.position, key_count = next.count;
  const auto load_keys = [&](const Matrix<const T>& x, T* to) {
    load_rows<Columns>(to, Shape::kKeys, D, call.whole(x, D), x.data, [&](int r) {
      return r < key_count ? x.row(tile.run.row + tile.first + r) + kv_head * D : nullptr;
    });
  };
  const auto load_step = [&](const QuerySteps& step, int slot) {
    T* to = stages + slot * 2 * queries * stride;
    const auto row_of = [&](int i) { return step.run.row + (step.begin + i) / step.group; };
    const auto head_of = [&](int i) { return kv_head * step.group + (step.begin + i) % step.group; };
    load_rows<Columns>(to, queries, D, call.whole(call.q, D), call.q.data, [&](int i) {
      return step.begin + i < step.end ? call.q.row(row_of(i)) + head_of(i) * D : nullptr;
    });
    load_rows<Columns>(to + queries * stride, queries, D, call.whole(call.upstream, D), call.upstream.data,
                       [&](int i) {
      return step.begin + i < step.end ? call.upstream.row(row_of(i)) + head_of(i) * D : nullptr;
    });
    if (thread_index() < queries) {
      const int i = thread_index();
      const bool there = step.begin + i < step.end;
      positions[slot][i] = there ? step.run.position + (step.begin + i) / step.group : -1;  // which sees nothing
      lse2s[slot][i] = there ? call.lse.row(row_of(i))[head_of(i)] * kLog2E : 0.0f;
      deltas[slot][i] = there ? call.delta[std::int64_t{row_of(i)} * heads + head_of(i)] : 0.0f;
    }
  };
  load_keys(call.k, keys);
  load_keys(call.v, values);
  load_step(next, 0);
  commit_copies();

  const int warp_key = warp_index() * Strips * 16;
  float dkeys[Shape::kPanels][Strips][2][4] = {}, dvalues[Shape::kPanels][Strips][2][4] = {};
  for (int slot = 0; !next.done() && steps > 0; slot ^= 1, --steps) {
    const int shared = next.shared;
    const int latest = next.run.position + (min_of(next.begin + queries, next.end) - 1) / next.group;
    next.advance(queries);
    wait_copies<0>();
    sync_block();  // the step's queries are there, and nobody reads those of the step before any more
    if (!next.done() && steps > 1) load_step(next, slot ^ 1);
    commit_copies();
    if (warp_key >= shared || position + warp_key > latest) continue;

    const T* step_queries = stages + slot * 2 * queries * stride;
    const T* step_upstream = step_queries + queries * stride;
    float weights[panels][Strips][2][4] = {}, gradients[panels][Strips][2][4] = {};
    multiply_rows<Columns>(keys + warp_key * stride, step_queries, weights);
    multiply_rows<Columns>(values + warp_key * stride, step_upstream, gradients);
    Factor<T> weight_factors[panels][Strips], gradient_factors[panels][Strips];
#pragma unroll
    for (int p = 0; p < panels; ++p) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int column = tile_column(p, i / 2, i % 2);
        const float lse2 = lse2s[slot][column], delta = deltas[slot][column];
        const int last = positions[slot][column];
        const Sight seen{first_visible(last, window), last};
#pragma unroll
        for (int s = 0; s < Strips; ++s)
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const int key = warp_key + tile_row(s, half);
            float& weight = weights[p][s][i / 2][2 * half + i % 2];
            float& gradient = gradients[p][s][i / 2][2 * half + i % 2];
            weight = key < shared && seen.sees(position + key) ? exp2_fast(fmaf(weight, scale2, -lse2)) : 0.0f;
            gradient = scale * weight * (gradient - delta);
          }
      }
#pragma unroll
      for (int s = 0; s < Strips; ++s) {
        weight_factors[p][s] = factor_of<T>(weights[p][s]);
        gradient_factors[p][s] = factor_of<T>(gradients[p][s]);
      }
    }
#pragma unroll
    for (int p = 0; p < Shape::kPanels; ++p) {
      limit_prefetch();
      multiply_columns<Columns>(weight_factors, step_upstream + 16 * (part * Shape::kPanels + p), dvalues[p]);
      limit_prefetch();
      multiply_columns<Columns>(gradient_factors, step_queries + 16 * (part * Shape::kPanels + p), dkeys[p]);
    }
  }
  wait_copies<0>();

#pragma unroll
  for (int s = 0; s < Strips; ++s)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int key = warp_key + tile_row(s, half);
      if (key >= key_count) continue;
      float *dkey, *dvalue;
      if (slot_of_tile < 0) {
        const std::int64_t row = tile.run.row + tile.first + key;
        dkey = dk.row(row) + kv_head * D;
        dvalue = dv.row(row) + kv_head * D;
      } else {
        const int kv_heads = call.shape.kv_heads;
        dkey = pieces.sum(slot_of_tile + piece, kv_heads, kv_head, 0, Shape::kKeys, Columns) + key * Columns;
        dvalue = pieces.sum(slot_of_tile + piece, kv_heads, kv_head, 1, Shape::kKeys, Columns) + key * Columns;
      }
#pragma unroll
      for (int p = 0; p < Shape::kPanels; ++p)
#pragma unroll
        for (int t = 0; t < 2; ++t) {
          const int column = tile_column(part * Shape::kPanels + p, t, 0);
          store_pair(dkey, column, D, dkeys[p][s][t][2 * half], dkeys[p][s][t][2 * half + 1]);
          store_pair(dvalue, column, D, dvalues[p][s][t][2 * half], dvalues[p][s][t][2 * half + 1]);
        }
    }
}

// Adds the pieces' sums in order. Blocks: tiles of runs; bands: kv heads.
template <typename T>
FORETOKEN_KERNEL void FORETOKEN_BOUNDS(kAttentionThreads)
    attention_add_pieces_kernel(BackwardCall<T> call, int keys, int columns, Pieces pieces, Matrix<float> dk, Matrix<float> dv) {
  const std::int64_t tile_index = block_index();
  if (tile_index >= call.tiles[call.paths.runs_count] || pieces.slots[tile_index] < 0) return;
  const KeyTile tile = KeyTile::of(call, tile_index, keys);
  const int D = call.shape.head_dim, kv_heads = call.shape.kv_heads, kv_head = band_index();
  const int count = pieces.items[tile_index + 1] - pieces.items[tile_index];
  for (int i = thread_index(); i < tile.count * D; i += block_threads()) {
    const int key = i / D, d = i % D;
    float dkey = 0, dvalue = 0;
    for (int p = 0; p < count; ++p) {
      const std::int64_t slot = pieces.slots[tile_index] + p;
      dkey += pieces.sum(slot, kv_heads, kv_head, 0, keys, columns)[key * columns + d];
      dvalue += pieces.sum(slot, kv_heads, kv_head, 1, keys, columns)[key * columns + d];
    }
    const std::int64_t row = tile.run.row + tile.first + key;
    dk.row(row)[kv_head * D + d] = dkey;
    dv.row(row)[kv_head * D + d] = dvalue;
  }
}

}  // namespace

namespace {

/// Keys of a tile, queries of a step, and columns of sums.
struct Tiling {
  int keys, queries, columns;
};

template <typename T>
Tiling tiling_of(int head_dim, bool warpgroups) {
  Tiling result{};
  const auto take = [&](auto columns) {
    using Shape = KeyShape<T, decltype(columns)::value>;
    result = {Shape::kKeys, Shape::kQueries, decltype(columns)::value};
  };
  if (!warpgroups) with_columns(head_dim, take);
  else result = {kWarpgroupKeys, kWarpgroupQueries, head_dim <= 64 ? 64 : 128};
  return result;
}

}  // namespace

template <typename T>
void launch_attention_backward_kv(Device& device, BackwardCall<T> call, std::int64_t rows, KeyScratch scratch, bool warpgroups,
                                  Matrix<float> dk, Matrix<float> dv) {
  const Tiling tiling = tiling_of<T>(call.shape.head_dim, warpgroups);
  const std::int64_t tiles = launch_run_tiles(device, call.paths, rows, 1, tiling.keys, scratch.tiles);
  const std::int64_t blocks = tiles + scratch.most_slots;
  call.tiles = scratch.tiles;
  const Pieces pieces{scratch.items, scratch.slots, scratch.sums, scratch.most_slots};
  FORETOKEN_LAUNCH(device, (attention_count_pieces_kernel<T>), (Grid{(tiles + kAttentionWarps - 1) / kAttentionWarps, kAttentionThreads}),
                   call, tiling.keys, tiling.queries, tiles, pieces);
  FORETOKEN_LAUNCH(device, attention_place_pieces_kernel, (Grid{1, kAttentionThreads}), tiles, pieces);
  if constexpr (std::is_same_v<T, BFloat16>)
    if (warpgroups) launch_attention_backward_kv_sm90(device, call, blocks, tiles, pieces, dk, dv);
  if (!warpgroups)
    with_columns(call.shape.head_dim, [&](auto columns) {
      constexpr int count = decltype(columns)::value;
      using Shape = KeyShape<T, count>;
      FORETOKEN_LAUNCH(device, (attention_backward_kv_kernel<T, count>),
                       (Grid{blocks, Shape::kThreads, Shape::kSharedBytes, call.shape.kv_heads * Shape::kParts}), call, tiles,
                       pieces, dk, dv);
    });
  if (scratch.most_slots > 0)
    FORETOKEN_LAUNCH(device, (attention_add_pieces_kernel<T>), (Grid{tiles, kAttentionThreads, 0, call.shape.kv_heads}), call,
                     tiling.keys, tiling.columns, pieces, dk, dv);
}

template <typename T>
KeyScratch key_scratch(const AttentionShape& shape, std::int64_t rows, std::int64_t runs_count, bool warpgroups) {
  const Tiling tiling = tiling_of<T>(shape.head_dim, warpgroups);
  const std::int64_t slot_floats = std::int64_t{2} * shape.kv_heads * tiling.keys * tiling.columns;
  const std::int64_t most_tiles = rows / tiling.keys + runs_count;
  // A run of any length may end in the middle of a step.
  const std::int64_t most_steps = rows * (shape.heads / shape.kv_heads) / tiling.queries + runs_count;
  const std::int64_t most_pieces = (most_steps + kPieceSteps - 1) / kPieceSteps;
  const std::int64_t slots = most_pieces > 1 ? most_tiles * most_pieces : 0;
  const std::int64_t affordable = static_cast<std::int64_t>(kMostPieceBytes / sizeof(float)) / slot_floats;
  KeyScratch result;
  result.most_slots = static_cast<int>(std::min(slots, affordable));
  result.most_tiles = most_tiles;
  result.sums_floats = result.most_slots * slot_floats;
  return result;
}

template void launch_attention_backward_kv(Device&, BackwardCall<float>, std::int64_t, KeyScratch, bool, Matrix<float>,
                                           Matrix<float>);
template void launch_attention_backward_kv(Device&, BackwardCall<BFloat16>, std::int64_t, KeyScratch, bool, Matrix<float>,
                                           Matrix<float>);
template KeyScratch key_scratch<float>(const AttentionShape&, std::int64_t, std::int64_t, bool);
template KeyScratch key_scratch<BFloat16>(const AttentionShape&, std::int64_t, std::int64_t, bool);

}  // namespace foretoken::cuda
