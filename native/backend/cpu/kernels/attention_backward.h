#pragma once

#include "backend/cpu/kernels/attention_tiles.h"

// With p_j = exp(s_j − lse) and δ = dout · out: dv_j += p_j · dout, ds_j = scale · p_j · (dout · v_j − δ),
// dq += ds_j · k_j, dk_j += ds_j · q.
//
// Orders of sums: dq over positions; dk and dv of a piece over its rows and, within a row, its query heads. Pieces are
// added in the order of the tree's runs. All are functions of the tree alone.

namespace foretoken::cpu {
namespace {

constexpr int kPagesPerStep = 4;

/// The first position that the path's share holds: the page of the first one that the piece sees.
FORETOKEN_INLINE std::int32_t path_base(const AttentionPiece& piece) {
  return first_visible(piece.run.position, piece.window) / kLanes * kLanes;
}

FORETOKEN_INLINE std::int64_t path_positions(const AttentionPiece& piece) {
  return padded(piece.run.position + piece.run.count) - path_base(piece);
}

/// Keys and values along the piece's path, from path_base on, with zeros up to the end of the last page.
struct PathRows {
  float* keys;               // (positions, Dp)
  float* keys_transposed;    // (pages, D, 16)
  float* values_transposed;  // (pages, D, 16)
};

template <typename T>
FORETOKEN_INLINE void gather_path(const AttentionPiece& piece, const PathRows& path) {
  const int D = piece.head_dim;
  const std::int64_t Dp = padded(D), positions = path_positions(piece);
  const std::int32_t base = path_base(piece), end = piece.run.position + piece.run.count;
  constexpr int ahead = 8;
  for (std::int64_t j = 0; j < positions; ++j) {
    float* key = path.keys + j * Dp;
    float* key_column = path.keys_transposed + j / kLanes * kLanes * D + j % kLanes;
    float* value_column = path.values_transposed + j / kLanes * kLanes * D + j % kLanes;
    for (std::int64_t d = 0; d < Dp; d += kLanes) store(key + d, zero());
    if (base + j >= end) {
      for (int d = 0; d < D; ++d) key_column[d * kLanes] = value_column[d * kLanes] = 0;
      continue;
    }
    const auto k_of = [&](std::int64_t row) { return (const T*)piece.k + row * piece.k_stride + piece.kv_head * D; };
    const auto v_of = [&](std::int64_t row) { return (const T*)piece.v + row * piece.v_stride + piece.kv_head * D; };
    if (base + j + ahead < end) {
      prefetch(k_of(piece.run.path_rows[base + j + ahead]), D);
      prefetch(v_of(piece.run.path_rows[base + j + ahead]), D);
    }
    const T* k = k_of(piece.run.path_rows[base + j]);
    const T* v = v_of(piece.run.path_rows[base + j]);
    for_vectors(D, [&](std::int64_t d, auto lanes) { store(key + d, load(k + d, lanes), lanes); });
    for (int d = 0; d < D; ++d) {
      key_column[d * kLanes] = key[d];
      value_column[d * kLanes] = to_float(v[d]);
    }
  }
}

template <typename T>
void attention_backward(const AttentionPiece& piece) {
  const QueryRun& run = piece.run;
  const int D = piece.head_dim, G = piece.group;
  const std::int64_t Dp = padded(D), positions = path_positions(piece);
  const std::int32_t base = path_base(piece);

  PathRows path;
  path.keys = piece.scratch;
  path.keys_transposed = path.keys + positions * Dp;
  path.values_transposed = path.keys_transposed + positions * Dp;
  float* dkeys = piece.dpath;                            // (positions, Dp)
  float* dvalues = dkeys + positions * Dp;
  // One tile of queries.
  float* q = path.values_transposed + positions * Dp;    // (kQueryTile, Dp)
  float* upstream = q + kQueryTile * Dp;
  float* dq = upstream + kQueryTile * Dp;
  constexpr std::int64_t step = kPagesPerStep * kLanes;
  float* p = dq + kQueryTile * Dp;                       // (kQueryTile, step)
  float* ds = p + kQueryTile * step;

  const float* q_rows[] = {q, q + kLanes * Dp};          // by 16 rows, as `mix` wants them
  const float* upstream_rows[] = {upstream, upstream + kLanes * Dp};
  static_assert(kQueryTile <= 2 * kLanes);

  gather_path<T>(piece, path);
  for (std::int64_t i = 0; i < 2 * positions * Dp; i += kLanes) store(dkeys + i, zero());

  // Tiles of rows times heads; where the heads alone are more than a tile, of heads.
  const int heads_at_once = G < kQueryTile ? G : kQueryTile;
  const std::int32_t rows_at_once = kQueryTile / heads_at_once;
  for (std::int32_t n = 0; n < run.count; n += rows_at_once)
    for (int g = 0; g < G; g += heads_at_once) {
      const int heads = G - g < heads_at_once ? G - g : heads_at_once;
      const int rows = run.count - n < rows_at_once ? run.count - n : rows_at_once;
      const int queries = rows * heads;
      float delta[kQueryTile], lse[kQueryTile];
      for (int m = 0; m < queries; ++m) {
        const std::int64_t row = run.row + n + m / heads;
        const int head = piece.kv_head * G + g + m % heads;
        const T* q_row = (const T*)piece.q + row * piece.q_stride + head * D;
        const T* out = (const T*)piece.out + row * piece.out_stride + head * D;
        const float* dout = piece.dout + row * piece.dout_stride + head * D;
        for (std::int64_t d = D / kLanes * kLanes; d < Dp; d += kLanes) {
          store(q + m * Dp + d, zero());
          store(upstream + m * Dp + d, zero());
        }
        for_vectors(D, [&](std::int64_t d, auto lanes) {
          store(q + m * Dp + d, load(q_row + d, lanes), lanes);
          store(upstream + m * Dp + d, load(dout + d, lanes), lanes);
        });
        for (std::int64_t d = 0; d < Dp; d += kLanes) store(dq + m * Dp + d, zero());
        delta[m] = reduce(D, [&](Vec total, std::int64_t d, auto lanes) {
          return fma(load(dout + d, lanes), load(out + d, lanes), total);
        });
        lse[m] = piece.lse[row * piece.lse_stride + head];
      }

      // The next tile's rows, and where this one's will go.
      for (std::int32_t r = 0; r < rows_at_once; ++r) {
        const std::int64_t row = run.row + n + r, column = (piece.kv_head * G + g) * D;
        if (n + r < run.count) prefetch<true>(piece.dq + row * piece.dq_stride + column, heads * D);
        if (n + rows_at_once + r >= run.count || heads < G) continue;
        prefetch((const T*)piece.q + (row + rows_at_once) * piece.q_stride + column, heads * D);
        prefetch((const T*)piece.out + (row + rows_at_once) * piece.out_stride + column, heads * D);
        prefetch(piece.dout + (row + rows_at_once) * piece.dout_stride + column, heads * D);
      }

      const std::int32_t last = run.position + n + rows - 1;
      const std::int32_t first = first_visible(run.position + n, piece.window) / kLanes * kLanes;
      for (std::int32_t j = first; j <= last; j += step) {
        const std::int64_t offset = j - base;
        const int pages = last - j + 1 >= step ? kPagesPerStep : (last - j) / kLanes + 1;
        const int width = pages * kLanes;
        const float* key_pages[kPagesPerStep];
        const float* value_pages[kPagesPerStep];
        for (int b = 0; b < pages; ++b) {
          key_pages[b] = path.keys_transposed + (offset + b * kLanes) * D;
          value_pages[b] = path.values_transposed + (offset + b * kLanes) * D;
        }
        dot(q, Dp, queries, key_pages, pages, D, p, step);
        dot(upstream, Dp, queries, value_pages, pages, D, ds, step);
        const Vec scale = broadcast(piece.scale);
        for (int m = 0; m < queries; ++m) {
          const std::int32_t position = run.position + n + m / heads;
          const std::int32_t visible = first_visible(position, piece.window);
          const Vec shift = broadcast(-lse[m]), subtract = broadcast(delta[m]);
          for (int c = 0; c < width; c += kLanes) {
            Vec weight = exp(load(p + m * step + c) * scale + shift);
            if (j + c < visible || j + c + kLanes - 1 > position)
              weight = within(lane_numbers(j + c), visible, position, weight, zero());
            store(p + m * step + c, weight);
            store(ds + m * step + c, weight * (load(ds + m * step + c) - subtract) * scale);
          }
        }
        const int seen = last - j + 1 < width ? last - j + 1 : width;
        const float* key_rows[kPagesPerStep];
        for (int b = 0; b < pages; ++b) key_rows[b] = path.keys + (offset + b * kLanes) * Dp;
        mix(ds, step, 1, key_rows, Dp, 0, seen, queries, (int)Dp, dq, Dp);
        mix(ds, 1, step, q_rows, Dp, 0, queries, seen, (int)Dp, dkeys + offset * Dp, Dp);
        mix(p, 1, step, upstream_rows, Dp, 0, queries, seen, (int)Dp, dvalues + offset * Dp, Dp);
      }

      for (int m = 0; m < queries; ++m) {
        float* row = piece.dq + (run.row + n + m / heads) * piece.dq_stride + (piece.kv_head * G + g + m % heads) * D;
        for_vectors(D, [&](std::int64_t d, auto lanes) { store(row + d, load(dq + m * Dp + d, lanes), lanes); });
      }
    }
}

void attention_backward_add(const AttentionPiece& piece) {
  const int D = piece.head_dim;
  const std::int64_t Dp = padded(D), positions = path_positions(piece);
  const std::int32_t base = path_base(piece), end = piece.run.position + piece.run.count;
  for (std::int32_t j = base; j < end; ++j) {
    const std::int64_t row = piece.run.path_rows[j];
    float* dk = piece.dk + row * piece.dk_stride + piece.kv_head * D;
    float* dv = piece.dv + row * piece.dv_stride + piece.kv_head * D;
    const float* dkey = piece.dpath + (j - base) * Dp;
    const float* dvalue = dkey + positions * Dp;
    for_vectors(D, [&](std::int64_t d, auto lanes) {
      store(dk + d, load(dk + d, lanes) + load(dkey + d, lanes), lanes);
      store(dv + d, load(dv + d, lanes) + load(dvalue + d, lanes), lanes);
    });
  }
}

}  // namespace
}  // namespace foretoken::cpu
