#include "backend/cuda/attention_backward_keys.h"
#include "backend/cuda/attention_operands.h"

namespace foretoken::cuda {

namespace {

using T = BFloat16;

template <int Columns>
struct KeyShape {
  static constexpr int kThreads = kWarpgroupKeys / kWarpgroupRows * kWarpgroup;
  static constexpr int kKeys = kWarpgroupKeys, kQueries = kWarpgroupQueries;
  static constexpr int kStages = 4;
  static constexpr int kStepElements = kQueries * Columns;
  static constexpr std::size_t kTileBytes = sizeof(T) * (2 * kKeys * Columns + kStages * 2 * kStepElements);
  static constexpr std::size_t kSharedBytes = kTileBytes + kStages * 3 * kQueries * sizeof(float) + sizeof(Arrivals);
  static_assert(kSharedBytes <= 227 * 1024);
};

/// What remains to be known of a step whose queries have been loaded.
struct StepFacts {
  bool there;
  int shared;              // as QuerySteps::shared
  int earliest, latest;    // positions of its queries
};

// The dk and dv of attention_backward_kv.cu by products of warpgroups, each with its own keys. Blocks and bands as there.
// A round per step, with copies two rounds ahead as in attention_forward_sm90.cu, whose products are waited for before it
// ends: put off, ptxas would wait for every single one. A warpgroup with keys takes all steps of the tile, adding zeros where its keys are not seen: ptxas
// would wait for every single product if there were a choice.
template <int Columns>
FORETOKEN_DEVICE void differentiate(const BackwardCall<T>& call, const KeyTile& tile, int piece, int slot_of_tile,
                                    const Pieces& pieces, const Matrix<float>& dk, const Matrix<float>& dv) {
  using Shape = KeyShape<Columns>;
  constexpr int queries = Shape::kQueries, panels = queries / 16, sums_count = Columns / 2, stages = Shape::kStages;
  T* keys = operand_memory();
  T* values = keys + Shape::kKeys * Columns;
  T* steps = values + Shape::kKeys * Columns;  // queries and upstream
  float* lse2s = reinterpret_cast<float*>(steps + stages * 2 * Shape::kStepElements);
  float* deltas = lse2s + stages * queries;
  int* positions = reinterpret_cast<int*>(deltas + stages * queries);
  Arrivals* arrivals = reinterpret_cast<Arrivals*>(positions + stages * queries);
  const int kv_head = band_index(), D = call.shape.head_dim, heads = call.shape.heads, window = call.shape.window;
  const float scale = call.shape.scale, scale2 = scale * kLog2E;

  QuerySteps ahead = tile.queries(call);
  ahead.advance(queries, piece * kPieceSteps);
  const ByGroup by_group(ahead.group);
  int steps_left = slot_of_tile < 0 ? 0x7fffffff : kPieceSteps;
  const int position = ahead.position, key_count = ahead.count;
  const auto queries_of = [&](int round) { return steps + round % stages * 2 * Shape::kStepElements; };

  constexpr int words = Columns / kWordElements<T>, rows_at_once = Shape::kThreads / words;
  static_assert(queries % rows_at_once == 0);
  const int row = thread_index() / words, column = thread_index() % words * kWordElements<T>;
  const int bytes = column < D ? 16 : 0, from_column = column < D ? column : 0;
  // What a thread with a query of the step ahead knows of it, until remember() puts it into shared memory.
  float lse2 = 0, delta = 0;
  int query_position = -1;  // which sees nothing
  const auto load = [&](int round) -> StepFacts {
    if (ahead.done() || steps_left == 0) {
      commit_copies();
      return {false, 0, 0, 0};
    }
    T* to = queries_of(round) + operand_element(queries, row, column);
#pragma unroll
    for (int i = 0; i < queries; i += rows_at_once) {
      const bool there = ahead.begin + row + i < ahead.end;
      const int at = there ? ahead.begin + row + i : ahead.begin, of_run = by_group.quotient(at);
      const int head = (kv_head - of_run) * ahead.group + at;
      copy_word(to + i * kBlockColumns, call.q.row(ahead.run.row + of_run) + head * D + from_column, there ? bytes : 0);
      copy_word(to + Shape::kStepElements + i * kBlockColumns,
                call.upstream.row(ahead.run.row + of_run) + head * D + from_column, there ? bytes : 0);
    }
    commit_copies();
    if (thread_index() < queries) {
      const int at = ahead.begin + thread_index(), of_run = by_group.quotient(at);
      const int head = (kv_head - of_run) * ahead.group + at;
      const bool there = at < ahead.end;
      query_position = there ? ahead.run.position + of_run : -1;
      lse2 = there ? call.lse.row(ahead.run.row + of_run)[head] * kLog2E : 0.0f;
      delta = there ? call.delta[std::int64_t{ahead.run.row + of_run} * heads + head] : 0.0f;
    }
    const int latest = min_of(ahead.begin + queries, ahead.end) - 1;
    const StepFacts facts{true, ahead.shared, ahead.run.position + by_group.quotient(ahead.begin),
                          ahead.run.position + by_group.quotient(latest)};
    ahead.advance(queries);
    --steps_left;
    return facts;
  };
  const auto remember = [&](int round) {
    if (thread_index() >= queries) return;
    const int at = round % stages * queries + thread_index();
    lse2s[at] = lse2;
    deltas[at] = delta;
    positions[at] = query_position;
  };
  // What the thread loaded for the next round is there, and it needs the round before this one no longer.
  const auto arrive_for_next = [&] {
    wait_copies<1>();
    show_to_products();
    arrive(arrivals);
  };

  if (thread_index() == 0) begin_arrivals(arrivals, Shape::kThreads / kWarp);
  const auto load_keys = [&](const Matrix<const T>& x, T* to) {
    load_operand<Columns>(to, Shape::kKeys, D, true, x.data, [&](int r) {
      return r < key_count ? x.row(tile.run.row + tile.first + r) + kv_head * D : nullptr;
    });
  };
  load_keys(call.k, keys);
  load_keys(call.v, values);
  StepFacts now = load(0);
  remember(0);
  StepFacts next = load(1);
  remember(1);
  sync_block();  // the barrier is ready
  arrive_for_next();

  const int group_key = warpgroup_index() * kWarpgroupRows, warp_key = warp_index() * 16;
  float weights[8 * panels], gradients[8 * panels], dkeys[sums_count] = {}, dvalues[sums_count] = {};
  Factor<T> weight_factors[panels], gradient_factors[panels];
  int round = 0;
  const auto differentiate_step = [&](auto whole) {
    const int at = round % stages * queries;
#pragma unroll
    for (int i = 0; i < 4 * panels; ++i) {
      const int query = at + tile_column(i / 4, i / 2 % 2, i % 2);
      const float query_lse2 = lse2s[query], query_delta = deltas[query];
      Sight sight{};
      if constexpr (!whole) sight = {first_visible(positions[query], window), positions[query]};
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int key = warp_key + tile_row(0, half);
        float& weight = weights[i / 2 * 4 + 2 * half + i % 2];
        float& gradient = gradients[i / 2 * 4 + 2 * half + i % 2];
        weight = whole || (key < now.shared && sight.sees(position + key)) ? exp2_fast(fmaf(weight, scale2, -query_lse2)) : 0.0f;
        gradient = scale * weight * (gradient - query_delta);
      }
    }
  };
  const auto leave = [&](const StepFacts& after) {
    if (after.there) remember(round + 2);
    now = next;
    next = after;
    ++round;
  };
  if (group_key >= key_count)
    while (now.there) {
      wait_arrivals(arrivals, round);
      const StepFacts after = load(round + 2);
      arrive_for_next();
      leave(after);
    }
  while (now.there) {
    wait_arrivals(arrivals, round);
    const StepFacts after = load(round + 2);
    const T *step_queries = queries_of(round), *step_upstream = step_queries + Shape::kStepElements;
    fence_products();
    start_product<Columns>(keys + group_key * kBlockColumns, Shape::kKeys, step_queries, queries, weights);
    start_product<Columns>(values + group_key * kBlockColumns, Shape::kKeys, step_upstream, queries, gradients);
    commit_products();
    wait_products<0>(weights, gradients);
    arrive_for_next();
    // Whether every query sees all keys of the warpgroup; queries that are not there have zeros, which add nothing.
    const bool whole = group_key + kWarpgroupRows <= now.shared && position + group_key + kWarpgroupRows - 1 <= now.earliest &&
                       first_visible(now.latest, window) <= position + group_key;
    if (whole) differentiate_step(std::true_type());
    else differentiate_step(std::false_type());
#pragma unroll
    for (int p = 0; p < panels; ++p) {
      weight_factors[p] = factor_of<T>(reinterpret_cast<const float(&)[2][4]>(weights[8 * p]));
      gradient_factors[p] = factor_of<T>(reinterpret_cast<const float(&)[2][4]>(gradients[8 * p]));
    }
    fence_products();
    start_product<true>(weight_factors, step_upstream, dvalues);
    start_product<true>(gradient_factors, step_queries, dkeys);
    commit_products();
    wait_products<0>(dkeys, dvalues);
    leave(after);
  }
  wait_products<0>(dkeys, dvalues);
  wait_copies<0>();

#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int key = warp_key + tile_row(0, half);
    if (key >= key_count) continue;
    float *dkey, *dvalue;
    if (slot_of_tile < 0) {
      const std::int64_t key_row = tile.run.row + tile.first + key;
      dkey = dk.row(key_row) + kv_head * D;
      dvalue = dv.row(key_row) + kv_head * D;
    } else {
      const int kv_heads = call.shape.kv_heads;
      dkey = pieces.sum(slot_of_tile + piece, kv_heads, kv_head, 0, Shape::kKeys, Columns) + key * Columns;
      dvalue = pieces.sum(slot_of_tile + piece, kv_heads, kv_head, 1, Shape::kKeys, Columns) + key * Columns;
    }
#pragma unroll
    for (int i = 0; i < sums_count / 4; ++i) {
      const int at = tile_column(i / 2, i % 2, 0);
      store_pair(dkey, at, D, dkeys[4 * i + 2 * half], dkeys[4 * i + 2 * half + 1]);
      store_pair(dvalue, at, D, dvalues[4 * i + 2 * half], dvalues[4 * i + 2 * half + 1]);
    }
  }
}

template <int Columns>
FORETOKEN_KERNEL void FORETOKEN_BOUNDS(KeyShape<Columns>::kThreads)
    attention_backward_kv_sm90_kernel(BackwardCall<T> call, std::int64_t most_tiles, Pieces pieces, Matrix<float> dk,
                                      Matrix<float> dv) {
  if constexpr (kWarpgroupProducts) {
    if (block_index() >= pieces.items[most_tiles]) return;
    const std::int64_t index = last_not_after(pieces.items, most_tiles, block_index());
    const int piece = static_cast<int>(block_index() - pieces.items[index]);
    differentiate<Columns>(call, KeyTile::of(call, index, kWarpgroupKeys), piece, pieces.slots[index], pieces, dk, dv);
  }
}

}  // namespace

void launch_attention_backward_kv_sm90(Device& device, const BackwardCall<BFloat16>& call, std::int64_t blocks,
                                       std::int64_t most_tiles, const Pieces& pieces, Matrix<float> dk, Matrix<float> dv) {
  with_operand_columns(call.shape.head_dim, [&](auto columns) {
    constexpr int count = decltype(columns)::value;
    using Shape = KeyShape<count>;
    FORETOKEN_LAUNCH(device, (attention_backward_kv_sm90_kernel<count>),
                     (Grid{blocks, Shape::kThreads, Shape::kSharedBytes, call.shape.kv_heads}), call, most_tiles, pieces, dk, dv);
  });
}

}  // namespace foretoken::cuda
