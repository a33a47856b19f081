#include <bit>

#include "backend/cuda/attention_forward.h"

namespace foretoken::cuda {

namespace {

constexpr int kDecodeRows = 16;  // of a tile: a strip

template <typename T, int Columns>
struct DecodeShape {
  static constexpr int kStride = kTileStride<T, Columns>;
  static constexpr std::size_t kStageBytes = sizeof(T) * 2 * kPagePositions * kStride;
  static constexpr int kStages = kStageBytes <= 24 * 1024 ? 3 : kStageBytes <= 72 * 1024 ? 2 : 1;
  static constexpr int kPanels = (Columns / 16 + kAttentionWarps - 1) / kAttentionWarps;  // of a warp
  static constexpr int kScoreStride = kPagePositions + 8;
  static constexpr std::size_t kSharedBytes =
      kStages * kStageBytes + sizeof(T) * kDecodeRows * kStride + sizeof(float) * 2 * kDecodeRows * kScoreStride;
  static_assert(kSharedBytes <= 163 * 1024, "sm_80 has no more");
};

/// Shares of pages that wait to be added, for every (run, row tile, kv head) and page.
struct Partials {
  float* data;  // null: pages are added as they come
  std::int64_t pages;
  int columns, splits;

  FORETOKEN_EITHER static std::int64_t page_floats(int columns) { return std::int64_t{kDecodeRows} * (columns + 2); }
  FORETOKEN_DEVICE float* page(std::int64_t item, std::int64_t b) const { return data + (item * pages + b) * page_floats(columns); }
  FORETOKEN_DEVICE float* share(float* page, int row) const { return page + row * columns; }
  FORETOKEN_DEVICE float* greatest(float* page) const { return page + kDecodeRows * columns; }
  FORETOKEN_DEVICE float* sum(float* page) const { return greatest(page) + kDecodeRows; }
  /// Where in `count` pages the part of a split begins.
  FORETOKEN_DEVICE int begin(int count, int split) const { return static_cast<int>(std::int64_t{count} * split / splits); }
};

/// Tiles of kDecodeRows that a run with `decodes` has.
FORETOKEN_EITHER int row_tiles(int group) { return (group + kDecodeRows - 1) / kDecodeRows; }

// The sums of attention_forward.cu for runs of few rows. Blocks: (run, row tile) by splits of the path; bands: kv heads.
// The block shares a page's work: each warp computes the scores of a quarter of the positions, then all read all scores,
// and each takes some panels of the values' columns. With partials the shares of pages are stored and
// attention_merge_kernel adds them, in order.
template <typename T, int Columns>
FORETOKEN_KERNEL void FORETOKEN_BOUNDS(kAttentionThreads)
    attention_decode_kernel(ForwardCall<T> call, Partials partials) {
  using Shape = DecodeShape<T, Columns>;
  constexpr int panels = kPagePositions / 16, stages = Shape::kStages;
  static_assert(panels == kAttentionWarps);
  const int tiles = row_tiles(call.group());
  const std::int64_t items = call.paths.runs_count * tiles;
  const std::int64_t item = block_index() % items;
  const int split = static_cast<int>(block_index() / items);
  const RowTile tile = row_tile(call, item / tiles, item % tiles, band_index(), kDecodeRows);
  if (tile.rows <= 0 || !call.decodes(tile.run.count)) return;
  // Every path is divided into equal parts, however long the longest one is.
  const int first_page = tile.first_seen() / kPagePositions, count = tile.last_position() / kPagePositions + 1 - first_page;
  const int begin = first_page + partials.begin(count, split), end = first_page + partials.begin(count, split + 1);
  if (begin >= end) return;

  T* stage_memory = shared_memory<T>();
  constexpr int stage_elements = 2 * kPagePositions * Shape::kStride;
  T* queries = stage_memory + stages * stage_elements;
  float* score_memory = reinterpret_cast<float*>(queries + kDecodeRows * Shape::kStride);
  const std::int32_t* table = call.paths.tables + tile.run.table * call.paths.table_stride;
  const float scale2 = call.shape.scale * kLog2E;

  const Sight sights[2] = {tile.sight(tile_row(0, 0)), tile.sight(tile_row(0, 1))};
  const auto sight = [&](int, int half) { return sights[half]; };
  float total[Shape::kPanels][1][2][4] = {};
  RowSums<1> sums = {{{-INFINITY, -INFINITY}}, {{0, 0}}};

  const auto load_stage = [&](int b, std::int64_t page) {
    T* keys = stage_memory + (b - begin) % stages * stage_elements;
    load_page<Columns>(call, tile, call.layout.keys(call.pages, page, tile.kv_head), b * kPagePositions, keys);
    load_page<Columns>(call, tile, call.layout.values(call.pages, page, tile.kv_head), b * kPagePositions,
                       keys + kPagePositions * Shape::kStride);
  };
  load_queries<Columns>(call, tile, kDecodeRows, queries);
#pragma unroll
  for (int i = 0; i < stages - 1; ++i) {
    if (begin + i < end) load_stage(begin + i, table[begin + i]);
    commit_copies();
  }
  std::int64_t page = table[min_of(begin + stages - 1, end - 1)];
  for (int b = begin; b < end; ++b) {
    if constexpr (stages > 1) wait_copies<(stages > 1 ? stages - 2 : 0)>();
    sync_block();  // the page is there, and nobody reads the one before any more
    if (b + stages - 1 < end) load_stage(b + stages - 1, page);
    commit_copies();
    page = table[min_of(b + stages, end - 1)];
    if constexpr (stages == 1) {
      wait_copies<0>();
      sync_block();
    }
    const T* keys = stage_memory + (b - begin) % stages * stage_elements;
    const T* values = keys + kPagePositions * Shape::kStride;

    float* exchange = score_memory + (b - begin) % 2 * kDecodeRows * Shape::kScoreStride;
    float part[1][1][2][4] = {};
    multiply_rows<Columns>(queries, keys + 16 * warp_index() * Shape::kStride, part);
#pragma unroll
    for (int i = 0; i < 8; ++i)
      exchange[tile_row(0, i % 4 / 2) * Shape::kScoreStride + tile_column(warp_index(), i / 4, i % 2)] = part[0][0][i / 4][i % 4];
    sync_block();
    float scores[panels][1][2][4];
#pragma unroll
    for (int p = 0; p < panels; ++p)
#pragma unroll
      for (int i = 0; i < 8; ++i)
        scores[p][0][i / 4][i % 4] = exchange[tile_row(0, i % 4 / 2) * Shape::kScoreStride + tile_column(p, i / 4, i % 2)];

    const RowSums<1> share = softmax_tile(scores, b * kPagePositions, false, sight, scale2);
    Factor<T> weights[panels][1];
#pragma unroll
    for (int p = 0; p < panels; ++p) weights[p][0] = factor_of<T>(scores[p][0]);
    float* stored = partials.data ? partials.page(item * call.shape.kv_heads + tile.kv_head, b) : nullptr;
    Merge merge[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = tile_row(0, half);
      if (stored && row < tile.rows && warp_index() == 0 && lane_index() % 4 == 0) {
        partials.greatest(stored)[row] = share.greatest[0][half];
        partials.sum(stored)[row] = share.sum[0][half];
      }
      merge[half] = Merge::of(sums.greatest[0][half], share.greatest[0][half], scale2);
      merge[half].apply(sums.sum[0][half], share.sum[0][half]);
    }
#pragma unroll
    for (int n = 0; n < Shape::kPanels; ++n) {
      const int p = warp_index() + n * kAttentionWarps;
      if (p >= Columns / 16) continue;
      float mix[1][2][4] = {};
      multiply_columns<Columns>(weights, values + 16 * p, mix);
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int row = tile_row(0, i % 4 / 2);
        if (!stored) merge[i % 4 / 2].apply(total[n][0][i / 4][i % 4], mix[0][i / 4][i % 4]);
        else if (row < tile.rows) partials.share(stored, row)[tile_column(p, i / 4, i % 2)] = mix[0][i / 4][i % 4];
      }
    }
  }
  wait_copies<0>();
  if (partials.data) return;

  const int D = call.shape.head_dim;
  // All read the queries for the last time before they met to exchange scores.
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float sum = sums.sum[0][half], inverse = 1 / sum;
    const int row = tile_row(0, half);
#pragma unroll
    for (int n = 0; n < Shape::kPanels; ++n) {
      const int p = warp_index() + n * kAttentionWarps;
      if (p >= Columns / 16) continue;
#pragma unroll
      for (int i = 0; i < 4; ++i)
        queries[row * Shape::kStride + tile_column(p, i / 2, i % 2)] = narrow<T>(total[n][0][i / 2][2 * half + i % 2] * inverse);
    }
    if (call.lse.data && warp_index() == 0 && lane_index() % 4 == 0 && row < tile.rows)
      call.lse.row(tile.batch_row(row))[tile.head(row)] = fmaf(sums.greatest[0][half], call.shape.scale, logf(sum));
  }
  sync_block();
  store_rows<Columns>(queries, tile.rows, thread_index(), block_threads(), D, call.out.aligned && D % kWordElements<T> == 0,
                      [&](int r) { return call.out.row(tile.batch_row(r)) + tile.head(r) * D; });
}

// Adds the shares of pages as attention_decode_kernel would have done itself. Blocks: (run, row tile); bands: kv heads;
// a thread per row and column.
template <typename T>
FORETOKEN_KERNEL void FORETOKEN_BOUNDS(kAttentionThreads) attention_merge_kernel(ForwardCall<T> call, Partials partials) {
  const int tiles = row_tiles(call.group()), D = call.shape.head_dim;
  const RowTile tile = row_tile(call, block_index() / tiles, block_index() % tiles, band_index(), kDecodeRows);
  if (tile.rows <= 0 || !call.decodes(tile.run.count)) return;
  const float scale2 = call.shape.scale * kLog2E;
  const int begin = tile.first_seen() / kPagePositions, end = tile.last_position() / kPagePositions + 1;
  for (int i = thread_index(); i < tile.rows * D; i += block_threads()) {
    const int row = i / D, d = i % D;
    float total = 0, greatest = -INFINITY, sum = 0;
#pragma unroll 4
    for (int b = begin; b < end; ++b) {
      float* page = partials.page(block_index() * call.shape.kv_heads + tile.kv_head, b);
      const Merge merge = Merge::of(greatest, partials.greatest(page)[row], scale2);
      merge.apply(sum, partials.sum(page)[row]);
      merge.apply(total, partials.share(page, row)[d]);
    }
    call.out.row(tile.batch_row(row))[tile.head(row) * D + d] = narrow<T>(total * (1 / sum));
    if (call.lse.data && d == 0)
      call.lse.row(tile.batch_row(row))[tile.head(row)] = fmaf(greatest, call.shape.scale, logf(sum));
  }
}

int columns_of(int head_dim) {
  int result = 0;
  with_columns(head_dim, [&](auto columns) { result = decltype(columns)::value; });
  return result;
}

std::int64_t pages_of(std::int64_t longest_path) { return (longest_path + kPagePositions - 1) / kPagePositions; }

constexpr std::int64_t kMostPartialFloats = 16 << 20;

}  // namespace

DecodePlan plan_attention_decode(const Device& device, const PagedPaths& paths, const AttentionShape& shape) {
  const int group = shape.heads / shape.kv_heads;
  const std::int64_t items = paths.runs_count * row_tiles(group) * shape.kv_heads;
  const std::int64_t pages = pages_of(paths.longest_path), floats = items * pages * Partials::page_floats(columns_of(shape.head_dim));
  if (paths.longest_run > 1 || items == 0 || items >= device.multiprocessors() || floats > kMostPartialFloats) return {1, 0};
  const std::int64_t splits = std::min<std::int64_t>(pages, 2 * device.multiprocessors() / items);
  return splits <= 1 ? DecodePlan{1, 0} : DecodePlan{static_cast<int>(splits), floats};
}

std::int64_t most_partial_floats(const Device& device, std::int64_t runs, std::int64_t longest_path, const AttentionShape& shape) {
  const std::int64_t run_items = row_tiles(shape.heads / shape.kv_heads) * shape.kv_heads;
  // A step of decoding that is recorded has a table of a power of two pages.
  const auto pages = static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(pages_of(longest_path))));
  const std::int64_t items = std::min(runs, (device.multiprocessors() - 1) / run_items) * run_items;
  if (pages < 2) return 0;
  return std::min(kMostPartialFloats, items * pages * Partials::page_floats(columns_of(shape.head_dim)));
}

template <typename T>
void launch_attention_decode(Device& device, const ForwardCall<T>& call, float* partials, int splits) {
  const std::int64_t items = call.paths.runs_count * row_tiles(call.group());
  with_columns(call.shape.head_dim, [&](auto columns) {
    constexpr int count = decltype(columns)::value;
    const Partials parts{splits > 1 ? partials : nullptr, pages_of(call.paths.longest_path), count, splits};
    FORETOKEN_LAUNCH(device, (attention_decode_kernel<T, count>),
                     (Grid{items * splits, kAttentionThreads, DecodeShape<T, count>::kSharedBytes, call.shape.kv_heads}), call, parts);
    if (splits > 1)
      FORETOKEN_LAUNCH(device, (attention_merge_kernel<T>), (Grid{items, kAttentionThreads, 0, call.shape.kv_heads}), call, parts);
  });
}

template void launch_attention_decode(Device&, const ForwardCall<float>&, float*, int);
template void launch_attention_decode(Device&, const ForwardCall<BFloat16>&, float*, int);

}  // namespace foretoken::cuda
