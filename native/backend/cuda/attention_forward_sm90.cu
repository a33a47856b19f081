#include "backend/cuda/attention_forward.h"
#include "backend/cuda/attention_operands.h"

namespace foretoken::cuda {

namespace {

using T = BFloat16;

template <int Columns>
struct TileShape {
  static constexpr int kGroups = Columns == 64 ? 3 : 2;  // warpgroups; more would not fit into the registers
  static constexpr int kThreads = kGroups * kWarpgroup;
  static constexpr int kRows = kGroups * kWarpgroupRows;
  static constexpr int kStages = 4;
  static constexpr int kPageElements = kPagePositions * Columns;
  static constexpr std::size_t kTileBytes = sizeof(T) * (kRows * Columns + kStages * 2 * kPageElements);
  static constexpr std::size_t kSharedBytes = kTileBytes + sizeof(Arrivals);
  static_assert(kSharedBytes <= 227 * 1024);
};

/// Loads of the pages of a tile, a step at a time: step b brings the keys of page b and the values of page b − 1, which is
/// what the products of one round take.
template <int Columns>
struct PageLoads {
  static constexpr int kWords = Columns / kWordElements<T>, kRowsAtOnce = TileShape<Columns>::kThreads / kWords;
  static_assert(kRowsAtOnce % 8 == 0);

  const ForwardCall<T>& call;
  const std::int32_t* table;
  int kv_head, first_page, last_page, last_position;
  int row, column, bytes, offset, stride;  // the thread's first word, where it is in a page, and how far the next one is
  std::int32_t page, page_before;

  FORETOKEN_DEVICE PageLoads(const ForwardCall<T>& call, const RowTile& tile, int first_page, int last_page)
      : call(call), table(call.paths.tables + tile.run.table * call.paths.table_stride), kv_head(tile.kv_head),
        first_page(first_page), last_page(last_page), last_position(tile.last_position()), row(thread_index() / kWords),
        column(thread_index() % kWords * kWordElements<T>),
        bytes(min_of(max_of(call.shape.head_dim - column, 0), kWordElements<T>) * static_cast<int>(sizeof(T))),
        offset(bytes > 0 ? row * call.layout.row + column : 0), stride(kRowsAtOnce * call.layout.row),
        page(table[first_page]), page_before(page) {}

  /// Steps are loaded in order.
  FORETOKEN_DEVICE void load(int step, T* keys, T* values) {
    if (step <= last_page) copy(call.layout.keys(call.pages, page, kv_head), step, keys);
    if (step > first_page && step <= last_page + 1) copy(call.layout.values(call.pages, page_before, kv_head), step - 1, values);
    page_before = page;
    if (step < last_page) page = table[step + 1];
  }

 private:
  /// Zeros for positions that come after the tile's last row.
  FORETOKEN_DEVICE void copy(const T* page_rows, int index, T* operand) const {
    const int last = last_position - index * kPagePositions;
    const T* from = page_rows + offset;
    T* to = operand + operand_element(kPagePositions, row, column);
#pragma unroll
    for (int i = 0; i < kPagePositions; i += kRowsAtOnce) {
      if (i + kRowsAtOnce <= kPagePositions || row + i < kPagePositions)
        copy_word(to + i * kBlockColumns, from, row + i <= last ? bytes : 0);
      from += stride;
    }
  }
};

// The sums of attention_forward.cu by products of warpgroups: a page is added as it is there, from shares with the same
// order of sums. Blocks and bands as there.
//
// A round per page: the products of its scores and those of the page before with its values are started together, and
// while the latter are computed the former become p. Copies are two rounds ahead. Warps wait for each other only where
// they need a page, so that one warpgroup multiplies while another computes exponentials.
template <int Columns>
FORETOKEN_DEVICE void attend(const ForwardCall<T>& call, const RowTile& tile) {
  using Shape = TileShape<Columns>;
  constexpr int panels = kPagePositions / 16, sums_count = Columns / 2;
  T* queries = operand_memory();
  T* stages = queries + Shape::kRows * Columns;
  Arrivals* arrivals = reinterpret_cast<Arrivals*>(stages + Shape::kStages * 2 * Shape::kPageElements);
  const int D = call.shape.head_dim;
  const float scale2 = call.shape.scale * kLog2E;
  const int first_page = tile.first_seen() / kPagePositions, last_page = tile.last_position() / kPagePositions;

  const int group_row = warpgroup_index() * kWarpgroupRows, warp_row = warp_index() * 16;
  const auto sight = [&](int, int half) { return tile.sight(warp_row + tile_row(0, half)); };
  // Pages that some row of the warpgroup sees, and those that all rows of the warp see whole.
  const int group_rows = min_of(tile.rows - group_row, kWarpgroupRows), warp_rows = min_of(tile.rows - warp_row, 16);
  const int seen_from = group_rows > 0 ? tile.sight(group_row).first / kPagePositions : last_page + 2;
  const int seen_to = group_rows > 0 ? tile.sight(group_row + group_rows - 1).last / kPagePositions : last_page + 1;
  const int whole_from = (tile.sight(warp_row + max_of(warp_rows, 1) - 1).first + kPagePositions - 1) / kPagePositions;
  const int whole_to = warp_rows == 16 ? (tile.sight(warp_row).last + 1) / kPagePositions - 1 : -1;

  if (thread_index() == 0) begin_arrivals(arrivals, Shape::kThreads / kWarp);
  PageLoads<Columns> loads(call, tile, first_page, last_page);
  const auto keys_of = [&](int step) { return stages + (step - first_page) % Shape::kStages * 2 * Shape::kPageElements; };
  const auto load = [&](int step) {
    loads.load(step, keys_of(step), keys_of(step) + Shape::kPageElements);
    commit_copies();
  };
  // What the thread loaded for the next step is there, and it needs the step before this one no longer.
  const auto arrive_for_next = [&](float after = 0) {
    wait_copies<1>();
    show_to_products();
    arrive(known_after(arrivals, after));
  };
  const auto enter = [&](int step) {
    wait_arrivals(arrivals, step - first_page);
    load(step + 2);
  };

  load_operand<Columns>(queries, Shape::kRows, D, call.q.aligned && D % kWordElements<T> == 0, call.q.data, [&](int r) {
    return r < tile.rows ? call.q.row(tile.batch_row(r)) + tile.head(r) * D : nullptr;
  });
  load(first_page);
  load(first_page + 1);
  sync_block();  // the barrier is ready
  arrive_for_next();

  float scores[panels][1][2][4], mix[sums_count], total[sums_count] = {};
  float(&flat_scores)[32] = *reinterpret_cast<float(*)[32]>(&scores);
  Factor<T> weights[panels];
  RowSums<1> sums = {{{-INFINITY, -INFINITY}}, {{0, 0}}};
  Merge merge[2];

  const auto start_scores = [&](int step) {
    start_product<Columns>(queries + group_row * kBlockColumns, Shape::kRows, keys_of(step), kPagePositions, flat_scores);
    commit_products();
  };
  const auto start_mix = [&](int step) {
    start_product<false>(weights, keys_of(step) + Shape::kPageElements, mix);
    commit_products();
  };
  // The scores become p; how the page will be added. Returns what is known last.
  const auto exponentiate = [&](int step, Merge (&next)[2]) {
    const bool whole = whole_from <= step && step <= whole_to;
    const RowSums<1> share = softmax_tile(scores, step * kPagePositions, whole, sight, scale2);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      next[half] = Merge::of(sums.greatest[0][half], share.greatest[0][half], scale2);
      next[half].apply(sums.sum[0][half], share.sum[0][half]);
    }
    return share.sum[0][0] + share.sum[0][1];
  };
  const auto add_mix = [&] {
#pragma unroll
    for (int i = 0; i < sums_count; ++i) merge[i % 4 / 2].apply(total[i], mix[i]);
  };
  const auto take_weights = [&] {
#pragma unroll
    for (int p = 0; p < panels; ++p) weights[p] = factor_of<T>(scores[p][0]);
  };

  int step = first_page;
  for (; step < seen_from && step <= last_page + 1; ++step) {
    enter(step);
    arrive_for_next();
  }
  if (step <= seen_to) {
    enter(step);
    fence_products();
    start_scores(step);
    wait_products<0>(flat_scores);
    exponentiate(step, merge);
    take_weights();
    arrive_for_next();
    for (++step; step <= seen_to; ++step) {
      enter(step);
      fence_products();
      start_scores(step);
      start_mix(step);
      wait_products<1>(flat_scores);
      Merge next[2];
      const float share_sum = exponentiate(step, next);
      arrive_for_next(share_sum);
      wait_products<0>(mix);
      add_mix();
      take_weights();
#pragma unroll
      for (int half = 0; half < 2; ++half) merge[half] = next[half];
    }
    enter(step);
    fence_products();
    start_mix(step);
    arrive_for_next();
    wait_products<0>(mix);
    add_mix();
    ++step;
  }
  for (; step <= last_page + 1; ++step) {
    enter(step);
    arrive_for_next();
  }
  wait_copies<0>();

  // The warp's results take the place of its queries, from where they go out in whole words.
  sync_block();
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float sum = sums.sum[0][half], inverse = 1 / sum;
    const int row = warp_row + tile_row(0, half);
#pragma unroll
    for (int i = 0; i < sums_count / 2; ++i) {
      const int at = i / 2 * 4 + 2 * half + i % 2;
      queries[operand_element(Shape::kRows, row, tile_column(i / 4, i / 2 % 2, i % 2))] = narrow<T>(total[at] * inverse);
    }
    if (call.lse.data && lane_index() % 4 == 0 && row < tile.rows)
      call.lse.row(tile.batch_row(row))[tile.head(row)] = fmaf(sums.greatest[0][half], call.shape.scale, logf(sum));
  }
  sync_warp();
  const bool aligned = call.out.aligned && D % kWordElements<T> == 0;
  const int row_words = (D + kWordElements<T> - 1) / kWordElements<T>;
  for (int i = lane_index(); i < warp_rows * row_words; i += kWarp) {
    const int r = warp_row + i / row_words, column = i % row_words * kWordElements<T>;
    const T* from = queries + operand_element(Shape::kRows, r, column);
    T* to = call.out.row(tile.batch_row(r)) + tile.head(r) * D + column;
    if (aligned) {
      *reinterpret_cast<Words*>(to) = *reinterpret_cast<const Words*>(from);
    } else {
      for (int j = 0; j < kWordElements<T> && column + j < D; ++j) to[j] = from[j];
    }
  }
}

template <int Columns>
FORETOKEN_KERNEL void FORETOKEN_BOUNDS(TileShape<Columns>::kThreads)
    attention_forward_sm90_kernel(ForwardCall<T> call, std::int64_t most_tiles) {
  if constexpr (kWarpgroupProducts) {
    const std::int64_t index = most_tiles - 1 - block_index() / call.paths.runs_count;
    const RowTile tile = row_tile(call, block_index() % call.paths.runs_count, index, band_index(), TileShape<Columns>::kRows);
    if (tile.rows > 0 && !call.decodes(tile.run.count)) attend<Columns>(call, tile);
  }
}

}  // namespace

bool launch_attention_forward_sm90(Device& device, const ForwardCall<T>& call) {
  return with_operand_columns(call.shape.head_dim, [&](auto columns) {
    constexpr int count = decltype(columns)::value;
    using Shape = TileShape<count>;
    const std::int64_t tiles = (call.paths.longest_run * call.group() + Shape::kRows - 1) / Shape::kRows;
    FORETOKEN_LAUNCH(device, (attention_forward_sm90_kernel<count>),
                     (Grid{call.paths.runs_count * tiles, Shape::kThreads, Shape::kSharedBytes, call.shape.kv_heads}), call, tiles);
  });
}

}  // namespace foretoken::cuda
