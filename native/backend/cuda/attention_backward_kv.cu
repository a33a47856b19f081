#include "backend/cuda/attention_backward.h"

namespace foretoken::cuda {

namespace {

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

/// The queries that a tile of keys is seen by, step by step: the runs of its tree in order, of each the packed rows whose
/// path has the tile's first key. All warps of a block find the same.
struct QuerySteps {
  // The tile: `count` keys that begin at a position and a row of the batch.
  int position, row, count;
  int group, window, tree_end;
  PackedPaths paths;

  int index = 0;       // run; tree_end after the last step
  Run run = {};
  int begin = 0, end = 0;  // packed rows that remain
  int shared = 0;      // so many of the tile's keys lie on the run's path: the first ones, as paths only part

  FORETOKEN_DEVICE bool done() const { return index >= tree_end; }

  FORETOKEN_DEVICE void find(int from) {
    for (index = tree_end; from < tree_end; from += kWarp) {
      const std::uint32_t found = ballot(from + lane_index() < tree_end && sees(from + lane_index()));
      if (found == 0) continue;
      index = from + lowest_bit(found);
      break;
    }
    if (done()) return;
    run = paths.runs[index];
    begin = max_of(0, position - run.position) * group;
    end = (window > 0 ? min_of(run.count, position + count - 1 + window - run.position) : run.count) * group;
    const std::int32_t* path = paths.path_rows + paths.path_begin[index];
    shared = 0;
    for (int i = 0; i < count; i += kWarp) {
      const int key = i + lane_index(), at = position + key;
      shared += count_bits(ballot(key < count && at < run.position + run.count && path[at] == row + key));
    }
  }
  FORETOKEN_DEVICE void advance(int queries) {
    begin += queries;
    if (begin >= end) find(index + 1);
  }

 private:
  FORETOKEN_DEVICE bool sees(int r) const {
    const Run candidate = paths.runs[r];
    if (candidate.position + candidate.count <= position) return false;
    if (window > 0 && candidate.position >= position + count - 1 + window) return false;
    return paths.path_rows[paths.path_begin[r] + position] == row;
  }
};

/// The tree of run `run`: the first run after it.
FORETOKEN_DEVICE int tree_end_of(const PackedPaths& paths, std::int64_t run) {
  std::int64_t low = 0, high = paths.trees_count;
  while (high - low > 1) {
    const std::int64_t middle = (low + high) / 2;
    (paths.trees[middle] <= run ? low : high) = middle;
  }
  return paths.trees[low + 1];
}

// dk and dv of the keys of a tile: over the queries that see them, runs of the tree in order, rows in order, the heads of
// the group in order, those of a step by multiply_columns onto the sum so far. The products are transposed, keys being
// the rows of a warp's strips. Blocks: tiles of runs; bands: kv heads by parts of the columns. Queries of the next step
// are loaded meanwhile.
template <typename T, int Columns>
FORETOKEN_KERNEL void FORETOKEN_BOUNDS((KeyShape<T, Columns>::kThreads))
    attention_backward_kv_kernel(BackwardCall<T> call, Matrix<float> dk, Matrix<float> dv) {
  using Shape = KeyShape<T, Columns>;
  constexpr int Strips = Shape::kStrips, panels = Shape::kQueries / 16, stride = Shape::kStride, queries = Shape::kQueries;
  FORETOKEN_SHARED float lse2s[2][queries], deltas[2][queries];
  FORETOKEN_SHARED int positions[2][queries];
  const std::int64_t tile_index = block_index();
  if (tile_index >= call.tiles[call.paths.runs_count]) return;
  const std::int64_t run_index = call.run_of(tile_index);
  const Run run = call.paths.runs[run_index];
  const int first = static_cast<int>(tile_index - call.tiles[run_index]) * Shape::kKeys;
  const int kv_head = band_index() / Shape::kParts, part = band_index() % Shape::kParts;
  const int D = call.shape.head_dim, heads = call.shape.heads, window = call.shape.window;
  const float scale = call.shape.scale, scale2 = scale * kLog2E;

  T* keys = shared_memory<T>();
  T* values = keys + Shape::kKeys * stride;
  T* stages = values + Shape::kKeys * stride;  // queries and upstream, twice
  QuerySteps next{run.position + first, run.row + first, min_of(Shape::kKeys, run.count - first), call.group(), window,
                  tree_end_of(call.paths, run_index), call.paths};
  const int position = next.position, key_count = next.count;
  const auto load_keys = [&](const Matrix<const T>& x, T* to) {
    load_rows<Columns>(to, Shape::kKeys, D, call.whole(x, D), x.data, [&](int r) {
      return r < key_count ? x.row(run.row + first + r) + kv_head * D : nullptr;
    });
  };
  const auto load_step = [&](const QuerySteps& step, int slot) {
    T* to = stages + slot * 2 * queries * stride;
    const auto row_of = [&](int i) { return step.run.row + (step.begin + i) / step.group; };
    const auto head_of = [&](int i) { return kv_head * step.group + (step.begin + i) % step.group; };
    load_rows<Columns>(to, queries, D, call.whole(call.q, D), call.q.data, [&](int i) {
      return step.begin + i < step.end ? call.q.row(row_of(i)) + head_of(i) * D : nullptr;
    });
    load_rows<Columns>(to + queries * stride, queries, D, call.whole(call.upstream, call.upstream_head), call.upstream.data,
                       [&](int i) {
      return step.begin + i < step.end ? call.upstream.row(row_of(i)) + head_of(i) * call.upstream_head : nullptr;
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
  next.find(static_cast<int>(run_index));
  load_step(next, 0);
  commit_copies();

  const int warp_key = warp_index() * Strips * 16;
  float dkeys[Shape::kPanels][Strips][2][4] = {}, dvalues[Shape::kPanels][Strips][2][4] = {};
  for (int slot = 0; !next.done(); slot ^= 1) {
    const int shared = next.shared;
    const int latest = next.run.position + (min_of(next.begin + queries, next.end) - 1) / next.group;
    next.advance(queries);
    wait_copies<0>();
    sync_block();  // the step's queries are there, and nobody reads those of the step before any more
    if (!next.done()) load_step(next, slot ^ 1);
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
      multiply_columns<Columns>(weight_factors, step_upstream + 16 * (part * Shape::kPanels + p), dvalues[p]);
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
      const std::int64_t row = run.row + first + key;
#pragma unroll
      for (int p = 0; p < Shape::kPanels; ++p)
#pragma unroll
        for (int t = 0; t < 2; ++t) {
          const int column = tile_column(part * Shape::kPanels + p, t, 0);
          store_pair(dk.row(row) + kv_head * D, column, D, dkeys[p][s][t][2 * half], dkeys[p][s][t][2 * half + 1]);
          store_pair(dv.row(row) + kv_head * D, column, D, dvalues[p][s][t][2 * half], dvalues[p][s][t][2 * half + 1]);
        }
    }
}

}  // namespace

template <typename T>
void launch_attention_backward_kv(Device& device, BackwardCall<T> call, std::int64_t rows, std::int32_t* tiles,
                                  Matrix<float> dk, Matrix<float> dv) {
  with_columns(call.shape.head_dim, [&](auto columns) {
    constexpr int count = decltype(columns)::value;
    using Shape = KeyShape<T, count>;
    const std::int64_t blocks = launch_run_tiles(device, call.paths, rows, 1, Shape::kKeys, tiles);
    call.tiles = tiles;
    FORETOKEN_LAUNCH(device, (attention_backward_kv_kernel<T, count>),
                     (Grid{blocks, Shape::kThreads, Shape::kSharedBytes, call.shape.kv_heads * Shape::kParts}), call, dk, dv);
  });
}

template void launch_attention_backward_kv(Device&, BackwardCall<float>, std::int64_t, std::int32_t*, Matrix<float>,
                                           Matrix<float>);
template void launch_attention_backward_kv(Device&, BackwardCall<BFloat16>, std::int64_t, std::int32_t*, Matrix<float>,
                                           Matrix<float>);

}  // namespace foretoken::cuda
