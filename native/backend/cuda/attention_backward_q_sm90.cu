#include "backend/cuda/attention_backward.h"
#include "backend/cuda/attention_operands.h"

namespace foretoken::cuda {

namespace {

using T = BFloat16;

constexpr int kKeys = 64;  // of a step; aligned to absolute positions

template <int Columns>
struct QueryShape {
  static constexpr int kGroups = Columns == 64 ? 3 : 2;  // warpgroups; more would not fit into the registers
  static constexpr int kThreads = kGroups * kWarpgroup;
  static constexpr int kRows = kGroups * kWarpgroupRows;
  static constexpr int kStages = 4;
  static constexpr int kStepElements = kKeys * Columns;
  static constexpr std::size_t kTileBytes = sizeof(T) * (2 * kRows * Columns + kStages * 2 * kStepElements);
  static constexpr std::size_t kSharedBytes = kTileBytes + sizeof(Arrivals);
  static_assert(kSharedBytes <= 227 * 1024);
};

/// Loads of the keys and values of steps, in order. Which rows of the batch they are is looked up a step before.
template <int Columns>
struct PathLoads {
  static constexpr int kWords = Columns / kWordElements<T>, kRowsAtOnce = QueryShape<Columns>::kThreads / kWords;
  static constexpr int kPasses = (kKeys + kRowsAtOnce - 1) / kRowsAtOnce;

  const BackwardCall<T>& call;
  const std::int32_t* row_at;
  int kv_head, last;  // position
  int row, column;
  std::int32_t rows[kPasses];

  FORETOKEN_DEVICE PathLoads(const BackwardCall<T>& call, std::int64_t run, const RowTile& tile, int first_step)
      : call(call), row_at(call.paths.path_rows + call.paths.path_begin[run]), kv_head(tile.kv_head), last(tile.last_position()),
        row(thread_index() / kWords), column(thread_index() % kWords * kWordElements<T>) {
    look_up(first_step);
  }

  FORETOKEN_DEVICE void load(int step, T* keys, T* values) {
    copy(call.k, keys);
    copy(call.v, values);
    look_up(step + 1);
  }

 private:
  FORETOKEN_DEVICE void copy(const Matrix<const T>& x, T* operand) const {
    const T* from = x.data + (column < call.shape.head_dim ? kv_head * call.shape.head_dim + column : 0);
    const int bytes = column < call.shape.head_dim ? 16 : 0;
    T* to = operand + operand_element(kKeys, row, column);
#pragma unroll
    for (int i = 0; i < kPasses; ++i) {
      if ((i + 1) * kRowsAtOnce > kKeys && row + i * kRowsAtOnce >= kKeys) continue;
      const bool there = rows[i] >= 0;
      copy_word(to + i * kRowsAtOnce * kBlockColumns, from + (there ? rows[i] : 0) * x.stride, there ? bytes : 0);
    }
  }
  FORETOKEN_DEVICE void look_up(int step) {
#pragma unroll
    for (int i = 0; i < kPasses; ++i) {
      const int position = step * kKeys + row + i * kRowsAtOnce;
      rows[i] = position <= last ? row_at[position] : -1;
    }
  }
};

// The dq of attention_backward_q.cu, over positions upwards, by products of warpgroups. Blocks and bands as there, the
// blocks the other way round. A round per step, with copies two rounds ahead as in attention_forward_sm90.cu; the products
// onto dq are waited for a round later.
template <int Columns>
FORETOKEN_DEVICE void differentiate(const BackwardCall<T>& call, std::int64_t run, const RowTile& tile, const Matrix<float>& dq) {
  using Shape = QueryShape<Columns>;
  constexpr int panels = kKeys / 16, sums_count = Columns / 2;
  T* queries = operand_memory();
  T* upstream = queries + Shape::kRows * Columns;
  T* stages = upstream + Shape::kRows * Columns;
  Arrivals* arrivals = reinterpret_cast<Arrivals*>(stages + Shape::kStages * 2 * Shape::kStepElements);
  const int D = call.shape.head_dim;
  const float scale = call.shape.scale, scale2 = scale * kLog2E;
  const int first_step = tile.first_seen() / kKeys, last_step = tile.last_position() / kKeys;

  const int group_row = warpgroup_index() * kWarpgroupRows, warp_row = warp_index() * 16;
  const int group_rows = min_of(tile.rows - group_row, kWarpgroupRows), warp_rows = min_of(tile.rows - warp_row, 16);
  // Steps that some row of the warpgroup sees, and those that all rows of the warp see whole.
  const int seen_from = group_rows > 0 ? tile.sight(group_row).first / kKeys : last_step + 1;
  const int seen_to = group_rows > 0 ? tile.sight(group_row + group_rows - 1).last / kKeys : last_step;
  const int whole_from = (tile.sight(warp_row + max_of(warp_rows, 1) - 1).first + kKeys - 1) / kKeys;
  const int whole_to = (tile.sight(warp_row).last + 1) / kKeys - 1;

  if (thread_index() == 0) begin_arrivals(arrivals, Shape::kThreads / kWarp);
  PathLoads<Columns> loads(call, run, tile, first_step);
  const auto keys_of = [&](int step) { return stages + (step - first_step) % Shape::kStages * 2 * Shape::kStepElements; };
  const auto load = [&](int step) {
    if (step <= last_step) loads.load(step, keys_of(step), keys_of(step) + Shape::kStepElements);
    commit_copies();
  };
  // What the thread loaded for the next step is there, and it needs the step before this one no longer.
  const auto arrive_for_next = [&] {
    wait_copies<1>();
    show_to_products();
    arrive(arrivals);
  };
  const auto enter = [&](int step) {
    wait_arrivals(arrivals, step - first_step);
    load(step + 2);
  };

  load_operand<Columns>(queries, Shape::kRows, D, true, call.q.data, [&](int r) {
    return r < tile.rows ? call.q.row(tile.batch_row(r)) + tile.head(r) * D : nullptr;
  });
  load_operand<Columns>(upstream, Shape::kRows, D, true, call.upstream.data, [&](int r) {
    return r < tile.rows ? call.upstream.row(tile.batch_row(r)) + tile.head(r) * D : nullptr;
  });
  load(first_step);
  load(first_step + 1);

  float lse2[2], delta[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = warp_row + tile_row(0, half);
    const bool there = row < tile.rows;
    lse2[half] = there ? call.lse.row(tile.batch_row(row))[tile.head(row)] * kLog2E : 0.0f;
    delta[half] = there ? call.delta[tile.batch_row(row) * call.shape.heads + tile.head(row)] : 0.0f;
  }
  sync_block();  // the barrier is ready
  arrive_for_next();

  float weights[32], gradients[32], total[sums_count] = {};
  Factor<T> factors[panels];
  const auto differentiate_step = [&](int step) {
    const bool whole = whole_from <= step && step <= whole_to;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const Sight seen = whole ? Sight{0, step * kKeys + kKeys} : tile.sight(warp_row + tile_row(0, half));
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        const int at = i / 2 * 4 + 2 * half + i % 2;
        const float weight = seen.sees(step * kKeys + tile_column(i / 4, i / 2 % 2, i % 2))
                                 ? exp2_fast(fmaf(weights[at], scale2, -lse2[half])) : 0.0f;
        gradients[at] = scale * weight * (gradients[at] - delta[half]);
      }
    }
#pragma unroll
    for (int p = 0; p < panels; ++p) factors[p] = factor_of<T>(reinterpret_cast<const float(&)[2][4]>(gradients[8 * p]));
  };

  int step = first_step;
  for (; step < seen_from && step <= last_step; ++step) {
    enter(step);
    arrive_for_next();
  }
  for (; step <= seen_to; ++step) {
    enter(step);
    fence_products();
    start_product<Columns>(queries + group_row * kBlockColumns, Shape::kRows, keys_of(step), kKeys, weights);
    start_product<Columns>(upstream + group_row * kBlockColumns, Shape::kRows, keys_of(step) + Shape::kStepElements, kKeys,
                           gradients);
    commit_products();
    wait_products<0>(weights, gradients, total);
    arrive_for_next();
    differentiate_step(step);
    fence_products();
    start_product<true>(factors, keys_of(step), total);
    commit_products();
  }
  wait_products<0>(total);
  for (; step <= last_step; ++step) {
    enter(step);
    arrive_for_next();
  }
  wait_copies<0>();

#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = warp_row + tile_row(0, half);
    if (row >= tile.rows) continue;
    float* target = dq.row(tile.batch_row(row)) + tile.head(row) * D;
#pragma unroll
    for (int i = 0; i < sums_count / 4; ++i)
      store_pair(target, tile_column(i / 2, i % 2, 0), D, total[4 * i + 2 * half], total[4 * i + 2 * half + 1]);
  }
}

template <int Columns>
FORETOKEN_KERNEL void FORETOKEN_BOUNDS(QueryShape<Columns>::kThreads)
    attention_backward_q_sm90_kernel(BackwardCall<T> call, Matrix<float> dq) {
  if constexpr (kWarpgroupProducts) {
    const std::int64_t tile_index = call.tiles[call.paths.runs_count] - 1 - block_index();  // long paths first
    if (tile_index < 0) return;
    const std::int64_t run = call.run_of(tile_index);
    const RowTile tile = RowTile::of(call.paths.runs[run], static_cast<int>(tile_index - call.tiles[run]),
                                     QueryShape<Columns>::kRows, call.group(), band_index(), call.shape.window);
    differentiate<Columns>(call, run, tile, dq);
  }
}

}  // namespace

void launch_attention_backward_q_sm90(Device& device, BackwardCall<BFloat16> call, std::int64_t rows, std::int32_t* tiles,
                                      Matrix<float> dq) {
  with_operand_columns(call.shape.head_dim, [&](auto columns) {
    constexpr int count = decltype(columns)::value;
    using Shape = QueryShape<count>;
    const std::int64_t blocks = launch_run_tiles(device, call.paths, rows, call.group(), Shape::kRows, tiles);
    call.tiles = tiles;
    FORETOKEN_LAUNCH(device, (attention_backward_q_sm90_kernel<count>),
                     (Grid{blocks, Shape::kThreads, Shape::kSharedBytes, call.shape.kv_heads}), call, dq);
  });
}

}  // namespace foretoken::cuda
