#pragma once

#include "backend/cpu/kernels/attention_tiles.h"

// A page of a kv head is its keys (D, P), transposed so that a vector holds one component of P keys, and then its
// values (P, D).
//
// Orders of sums, for a query at absolute position p: a score over d; the sum of exponentials over pages in each of 16
// lanes (lane = position mod 16), then the tree of `sum`; an output component over positions in order. None of them
// knows what else is computed at the same time.

namespace foretoken::cpu {
namespace {

/// Pages that rows with equal tables there are looked at together.
constexpr int kPagesTogether = 4;

template <typename T>
void cache_write(const void* k, const void* v, int head_dim, int lane, void* page_of_head) {
  T* keys = (T*)page_of_head;
  T* values = keys + head_dim * kLanes + lane * head_dim;
  for (int d = 0; d < head_dim; ++d) keys[d * kLanes + lane] = ((const T*)k)[d];
  for (int d = 0; d < head_dim; ++d) values[d] = ((const T*)v)[d];
}

/// Calls f(first row, end row, first page, end page) for pieces that cover, for each row, the pages it sees; the rows
/// of a piece have the same pages there. In the order of pages.
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
      f(r, next, first, end);
      r = next;
    }
  }
}

// s_j = scale · q · k_j, m = max s, out = Σ exp(s_j − m) v_j / Σ exp(s_j − m), lse = m + log Σ exp(s_j − m)
template <typename T>
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

  float* q = tile.scratch;                      // (queries, Dp)
  float* mixed = q + kQueryTile * Dp;           // (queries, Dp)
  float* scores = mixed + kQueryTile * Dp;      // (queries, width), of positions from begin_page on
  float reciprocal[kQueryTile];

  const auto page_keys = [&](const std::int32_t* table, int page) {
    return (const T*)tile.pages + table[page] * tile.page_stride + (std::int64_t)tile.kv_head * 2 * kLanes * D;
  };

  for (int i = 0; i < queries; ++i) {
    const T* row = (const T*)tile.q + tile.rows[i / G].row * tile.q_stride + (tile.first_head + i % G) * D;
    for_vectors(D, [&](std::int64_t d, auto lanes) { store(q + i * Dp + d, load(row + d, lanes), lanes); });
    for_vectors(Dp, [&](std::int64_t d, auto lanes) { store(mixed + i * Dp + d, zero(), lanes); });
  }

  for_shared_pages(tile, begin_page, end_page, [&](int r, int end_row, int page, int end) {
    const T* keys[kPagesTogether];
    for (int b = page; b < end; ++b) keys[b - page] = page_keys(tile.rows[r].table, b);
    dot(q + r * G * Dp, Dp, (end_row - r) * G, keys, end - page, D,
        scores + r * G * width + (page - begin_page) * kLanes, width);
  });

  // In two passes over all queries, for the processor to work on several of them at a time.
  float greatest_score[kQueryTile];
  const Vec lowest = broadcast(-__builtin_inff()), scale = broadcast(tile.scale);
  for (int i = 0; i < queries; ++i) {
    const std::int32_t position = tile.rows[i / G].position, visible = first_visible(position, tile.window);
    const int first_page = visible / kLanes, last_page = position / kLanes;
    float* page_scores = scores + i * width - begin_page * kLanes;
    for (int b = begin_page; b < first_page; ++b) store(page_scores + b * kLanes, zero());
    for (int b = last_page + 1; b < end_page; ++b) store(page_scores + b * kLanes, zero());
    Vec most = lowest;
    for (int b = first_page; b <= last_page; ++b) {
      Vec score = load(page_scores + b * kLanes) * scale;
      if (b == first_page || b == last_page)
        score = within(lane_numbers(b * kLanes), visible, position, score, lowest);
      store(page_scores + b * kLanes, score);
      most = max(most, score);
    }
    greatest_score[i] = greatest(most);
  }
  for (int i = 0; i < queries; ++i) {
    const std::int32_t position = tile.rows[i / G].position;
    float* page_scores = scores + i * width - begin_page * kLanes;
    const Vec shift = broadcast(greatest_score[i]);
    Vec total = zero();
    for (int b = first_visible(position, tile.window) / kLanes; b <= position / kLanes; ++b) {
      const Vec weight = exp(load(page_scores + b * kLanes) - shift);
      store(page_scores + b * kLanes, weight);
      total = total + weight;
    }
    const float weights = sum(total);
    reciprocal[i] = 1.0f / weights;
    if (tile.lse)
      tile.lse[tile.rows[i / G].row * tile.lse_stride + tile.first_head + i % G] =
          greatest_score[i] + __builtin_logf(weights);
  }

  for_shared_pages(tile, begin_page, end_page, [&](int r, int end_row, int page, int end) {
    std::int32_t from = 0x7fffffff, to = 0;  // positions that some row of the piece sees
    for (int i = r; i < end_row; ++i) {
      const std::int32_t visible = first_visible(tile.rows[i].position, tile.window);
      if (visible < from) from = visible;
      if (tile.rows[i].position > to) to = tile.rows[i].position;
    }
    const T* values[kPagesTogether];
    for (int b = page; b < end; ++b) values[b - page] = page_keys(tile.rows[r].table, b) + kLanes * D;
    const int begin_lane = from > page * kLanes ? from - page * kLanes : 0;
    const int end_lane = to < end * kLanes - 1 ? to - page * kLanes + 1 : (end - page) * kLanes;
    mix(scores + r * G * width + (page - begin_page) * kLanes, width, 1, values, D, begin_lane, end_lane,
        (end_row - r) * G, D, mixed + r * G * Dp, Dp);
  });

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
