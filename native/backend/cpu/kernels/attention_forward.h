#pragma once

#include "backend/cpu/kernels/attention_tiles.h"

// A page of a kv head is its keys, transposed so that a vector holds one unit of P keys: (D / unit, P) units along d; and
// then its values: (P / unit, D) units along the positions.
//
// Orders of sums, for a query at absolute position p: a score over d; the sum of exponentials over pages in each of 16
// lanes (lane = position mod 16), then the tree of `sum`; an output component over positions in order, the exponentials
// rounded to T. None of them knows what else is computed at the same time.

namespace foretoken::cpu {
namespace {

/// Pages that rows with equal tables there are looked at together.
constexpr int kPagesTogether = 4;

/// Rows of a tile and pages that are looked at together: all the rows see these pages there.
struct SharedPages {
  int begin_row, end_row, begin_page, end_page;
};

/// Calls f for pieces that cover, for each row, the pages it sees; in the order of pages.
template <typename Function>
FORETOKEN_INLINE void for_shared_pages(const AttentionTile& tile, int begin_page, int end_page, const Function& f) {
  for (int page = begin_page; page < end_page; page += kPagesTogether) {
    const auto first_of = [&](int r) {
      const int first = first_visible(tile.rows[r].position, tile.window) / kLanes;
      return first > page ? first : page;
    };
    const auto end_of = [&](int r) {
      const int end = tile.rows[r].position / kLanes + 1;
      return end < page + kPagesTogether ? end : page + kPagesTogether;
    };
    for (int r = 0; r < tile.rows_count;) {
      int first = first_of(r), end = end_of(r);
      int next = r + 1;
      if (first >= end) { r = next; continue; }
      const std::int32_t* table = tile.rows[r].table;
      if (next < tile.rows_count && tile.rows[next].table == table) {
        for (; next < tile.rows_count && tile.rows[next].table == table; ++next) {
          const int next_first = first_of(next), next_end = end_of(next);
          if (next_first >= next_end) break;
          if (next_first < first) first = next_first;
          if (next_end > end) end = next_end;
        }
      } else {
        for (; next < tile.rows_count && first_of(next) == first && end_of(next) == end; ++next) {
          bool equal = true;
          for (int b = first; b < end; ++b) equal = equal && tile.rows[next].table[b] == table[b];
          if (!equal) break;
        }
      }
      f(SharedPages{r, next, first, end});
      r = next;
    }
  }
}

// s_j = scale · q · k_j, m = max s, out = Σ exp(s_j − m) v_j / Σ exp(s_j − m), lse = m + log Σ exp(s_j − m)
template <typename T, typename Products>
void attention_forward(const AttentionTile& tile) {
  const int D = tile.head_dim, G = tile.heads, queries = tile.rows_count * G;
  const std::int64_t Dp = padded(D);
  std::int32_t first = 0x7fffffff, last = 0;
  for (int r = 0; r < tile.rows_count; ++r) {
    const std::int32_t position = tile.rows[r].position, visible = first_visible(position, tile.window);
    if (visible < first) first = visible;
    if (position > last) last = position;
  }
  const int begin_page = first / kLanes, end_page = last / kLanes + 1;
  const std::int64_t width = (std::int64_t)(end_page - begin_page) * kLanes;

  constexpr int unit = kUnit<T>;
  Word* q = (Word*)tile.scratch;                      // (queries, Dp) of D / unit units
  const int rows = queries + Products::rows_beyond;
  float* mixed = tile.scratch + rows * Dp;            // (queries, Dp)
  float* scores = mixed + rows * Dp;                  // (queries, width), of positions from begin_page on
  float reciprocal[kGreatestQueryTile];

  // While a piece is computed, the memory of the next one is asked for: pages lie anywhere.
  struct Pages {
    const T* keys[kPagesTogether];
    const T* values[kPagesTogether];
  };
  const auto pages_of = [&](const SharedPages& piece) {
    Pages pages;
    for (int b = 0; b < kPagesTogether; ++b) {
      const int page = piece.begin_page + b < piece.end_page ? piece.begin_page + b : piece.end_page - 1;
      pages.keys[b] = (const T*)tile.pages + tile.rows[piece.begin_row].table[page] * tile.page_stride +
                      (std::int64_t)tile.kv_head * 2 * kLanes * D;
      pages.values[b] = pages.keys[b] + kLanes * D;
    }
    return pages;
  };
  const auto for_pages = [&](const auto& compute, Pages& last_pages) {
    SharedPages piece{};
    Pages pages;
    bool any = false;
    for_shared_pages(tile, begin_page, end_page, [&](const SharedPages& next) {
      const Pages next_pages = pages_of(next);
      if (any) compute(piece, pages, next_pages);
      any = true;
      piece = next;
      pages = next_pages;
    });
    compute(piece, pages, last_pages);
  };
  Pages first_pages = pages_of({0, 1, first_visible(tile.rows[0].position, tile.window) / kLanes,
                                tile.rows[0].position / kLanes + 1});

  for (int i = 0; i < queries; ++i) {
    const T* row = (const T*)tile.q + tile.rows[i / G].row * tile.q_stride + (tile.first_head + i % G) * D;
    __builtin_memcpy(q + i * Dp, row, (std::size_t)D * sizeof(T));
    for_vectors(Dp, [&](std::int64_t d, auto lanes) { store(mixed + i * Dp + d, zero(), lanes); });
  }

  const Products products;
  for_pages([&](const SharedPages& piece, const Pages& pages, const Pages& next) {
    products.dot(q + piece.begin_row * G * Dp, Dp, (piece.end_row - piece.begin_row) * G, pages.keys, next.keys,
        piece.end_page - piece.begin_page, D / unit,
        scores + piece.begin_row * G * width + (piece.begin_page - begin_page) * kLanes, width);
  }, first_pages);

  // In two passes over all queries, for the processor to work on several of them at a time.
  float greatest_score[kGreatestQueryTile];
  const Vec lowest = broadcast(-__builtin_inff()), scale = broadcast(tile.scale);
  // Calls f(page, edge) for the pages that a position sees; only at an edge there may be positions that it does not.
  const auto for_seen_pages = [&](int first, int last, const auto& f) __attribute__((always_inline)) {
    f(first, Count<1>{});
    for (int b = first + 1; b < last; ++b) f(b, Count<0>{});
    if (last > first) f(last, Count<1>{});
  };
  for (int i = 0; i < queries; ++i) {
    const std::int32_t position = tile.rows[i / G].position, visible = first_visible(position, tile.window);
    const float* page_scores = scores + i * width - begin_page * kLanes;
    Vec most = lowest;
    for_seen_pages(visible / kLanes, position / kLanes, [&](int b, auto edge) __attribute__((always_inline)) {
      Vec score = load(page_scores + b * kLanes) * scale;
      if constexpr (decltype(edge)::value) score = within(lane_numbers(b * kLanes), visible, position, score, lowest);
      most = max(most, score);
    });
    greatest_score[i] = greatest(most);
  }
  for (int i = 0; i < queries; ++i) {
    const std::int32_t position = tile.rows[i / G].position, visible = first_visible(position, tile.window);
    const int first_page = visible / kLanes, last_page = position / kLanes;
    const float* page_scores = scores + i * width - begin_page * kLanes;
    T* rounded = (T*)(scores + i * width) - begin_page * kLanes;  // in the same place, where the scores have been read
    const Vec shift = broadcast(greatest_score[i]);
    Vec total = zero();
    for (int b = begin_page; b < first_page; ++b) store(rounded + b * kLanes, zero());
    for_seen_pages(first_page, last_page, [&](int b, auto edge) __attribute__((always_inline)) {
      Vec score = load(page_scores + b * kLanes) * scale - shift;
      // Not e to the −∞: a result that is almost zero takes a processor hundreds of cycles.
      if constexpr (decltype(edge)::value) score = within(lane_numbers(b * kLanes), visible, position, score, zero());
      Vec weight = exp(score);
      if constexpr (decltype(edge)::value) weight = within(lane_numbers(b * kLanes), visible, position, weight, zero());
      store(rounded + b * kLanes, weight);
      total = total + weight;
    });
    for (int b = last_page + 1; b < end_page; ++b) store(rounded + b * kLanes, zero());
    const float weights = sum(total);
    reciprocal[i] = 1.0f / weights;
    if (tile.lse)
      tile.lse[tile.rows[i / G].row * tile.lse_stride + tile.first_head + i % G] =
          greatest_score[i] + __builtin_logf(weights);
  }

  for_pages([&](const SharedPages& piece, const Pages& pages, const Pages& next) {
    std::int32_t from = 0x7fffffff, to = 0;  // positions that some row of the piece sees
    for (int i = piece.begin_row; i < piece.end_row; ++i) {
      const std::int32_t visible = first_visible(tile.rows[i].position, tile.window);
      if (visible < from) from = visible;
      if (tile.rows[i].position > to) to = tile.rows[i].position;
    }
    const int begin = piece.begin_page * kLanes, end = piece.end_page * kLanes;
    const Word* weights = (const Word*)(scores + piece.begin_row * G * width) + (begin - begin_page * kLanes) / unit;
    const Mixture<T> mixture = {weights, width, 1, pages.values, next.values, D,
                                from > begin ? from - begin : 0, (to < end - 1 ? to + 1 : end) - begin};
    products.mix(mixture, (piece.end_row - piece.begin_row) * G, D, mixed + piece.begin_row * G * Dp, Dp);
  }, first_pages);

  for (int i = 0; i < queries; ++i) {
    T* row = (T*)tile.out + tile.rows[i / G].row * tile.out_stride + (tile.first_head + i % G) * D;
    const Vec factor = broadcast(reciprocal[i]);
    for_vectors(D, [&](std::int64_t d, auto lanes) {
      store(row + d, load(mixed + i * Dp + d, lanes) * factor, lanes);
    });
  }
}

}  // namespace
}  // namespace foretoken::cpu
