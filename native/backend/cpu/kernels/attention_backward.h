#pragma once

#include "backend/cpu/kernels/attention_tiles.h"

// With p_j = exp(s_j − lse) and δ = dout · out: dv_j += p_j · dout, ds_j = scale · p_j · (dout · v_j − δ),
// dq += ds_j · k_j, dk_j += ds_j · q.
//
// p and ds are rounded to T before they are multiplied. Orders of sums: dq over positions; dk and dv of a piece over its
// rows and, within a row, its query heads. Pieces are added in the order of the tree's runs. All are functions of the tree
// alone.

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

/// rows (unit of (D)) or null, for zeros -> (Dp) units.
template <typename T>
FORETOKEN_INLINE void pair_rows(const T* const* rows, int D, std::int64_t Dp, T* units) {
  for (std::int64_t d = 0; d < Dp; d += kLanes) {
    const auto values = [&](const T* row) {
      if (row == nullptr || d >= D) return zero();
      return d + kLanes <= D ? load(row + d) : load(row + d, Part{(int)(D - d)});
    };
    if constexpr (kUnit<T> == 1) store(units + d, values(rows[0]));
    else store_units(units + d * kUnit<T>, pairs_of(values(rows[0]), values(rows[1])));
  }
}

/// Keys and values along the piece's path, from path_base on, with zeros up to the end of the last page.
template <typename T>
struct PathRows {
  T* keys_transposed;    // (pages, D / unit, 16) units along d
  T* values_transposed;  // (pages, D / unit, 16) units along d
  T* keys;               // (pages, 16 / unit, Dp) units along the positions
};

template <typename T>
FORETOKEN_INLINE void gather_path(const AttentionPiece& piece, const PathRows<T>& path) {
  constexpr int unit = kUnit<T>, ahead = 8;
  const int D = piece.head_dim;
  const std::int64_t Dp = padded(D), positions = path_positions(piece);
  const std::int32_t base = path_base(piece), end = piece.run.position + piece.run.count;
  const auto row_of = [&](const void* x, std::int64_t stride, std::int64_t position) {
    return (const T*)x + piece.run.path_rows[position] * stride + piece.kv_head * D;
  };
  for (std::int64_t j = 0; j < positions; ++j) {
    T* key_column = path.keys_transposed + j / kLanes * kLanes * D + j % kLanes * unit;
    T* value_column = path.values_transposed + j / kLanes * kLanes * D + j % kLanes * unit;
    if (base + j >= end) {
      for (int d = 0; d < D; d += unit)
        *(Word*)(key_column + d * kLanes) = *(Word*)(value_column + d * kLanes) = 0;
      continue;
    }
    if (base + j + ahead < end) {
      prefetch(row_of(piece.k, piece.k_stride, base + j + ahead), D);
      prefetch(row_of(piece.v, piece.v_stride, base + j + ahead), D);
    }
    const T* k = row_of(piece.k, piece.k_stride, base + j);
    const T* v = row_of(piece.v, piece.v_stride, base + j);
    for (int d = 0; d < D; d += unit) {
      __builtin_memcpy(key_column + d * kLanes, k + d, sizeof(Word));
      __builtin_memcpy(value_column + d * kLanes, v + d, sizeof(Word));
    }
  }
  // D columns of Dp: the further ones are multiplied, too, and must be numbers.
  for (std::int64_t j = 0; j < positions; j += unit) {
    const T* rows[unit];
    for (int i = 0; i < unit; ++i) rows[i] = base + j + i < end ? row_of(piece.k, piece.k_stride, base + j + i) : nullptr;
    pair_rows(rows, D, Dp, path.keys + j * Dp);
  }
}

template <typename T>
void attention_backward(const AttentionPiece& piece) {
  constexpr int unit = kUnit<T>;
  constexpr std::int64_t step = kPagesPerStep * kLanes;
  const QueryRun& run = piece.run;
  const int D = piece.head_dim, G = piece.group;
  const std::int64_t Dp = padded(D), positions = path_positions(piece);
  const std::int32_t base = path_base(piece);

  float* memory = piece.scratch;
  const auto floats = [&](std::int64_t count) { float* part = memory; memory += count; return part; };
  PathRows<T> path;
  path.keys_transposed = (T*)floats(positions * Dp);
  path.values_transposed = (T*)floats(positions * Dp);
  path.keys = (T*)floats(positions * Dp);
  float* dkeys = piece.dpath;                     // (positions, Dp)
  float* dvalues = dkeys + positions * Dp;
  // One tile of queries.
  T* q = (T*)floats(kGradientTile * Dp);             // (kGradientTile, Dp), along d
  T* upstream = (T*)floats(kGradientTile * Dp);
  T* q_rows = q;                                  // (kGradientTile / unit, Dp) units along the queries
  T* upstream_rows = upstream;
  if constexpr (unit > 1) {                       // the second half of the same memory
    q_rows += kGradientTile * Dp;
    upstream_rows += kGradientTile * Dp;
  }
  float* dq = floats(kGradientTile * Dp);
  float* p = floats(kGradientTile * step);           // (kGradientTile, step)
  float* ds = floats(kGradientTile * step);

  // By 16 queries, as `mix` wants them.
  static_assert(kGradientTile % kLanes == 0);
  const T *q_blocks[kGradientTile / kLanes], *upstream_blocks[kGradientTile / kLanes];
  for (int b = 0; b < kGradientTile / kLanes; ++b) {
    q_blocks[b] = q_rows + b * kLanes * Dp;
    upstream_blocks[b] = upstream_rows + b * kLanes * Dp;
  }

  gather_path<T>(piece, path);
  for (std::int64_t i = 0; i < 2 * positions * Dp; i += kLanes) store(dkeys + i, zero());

  // Tiles of rows times heads; where the heads alone are more than a tile, of heads.
  const int heads_at_once = G < kGradientTile ? G : kGradientTile;
  const std::int32_t rows_at_once = kGradientTile / heads_at_once;
  for (std::int32_t n = 0; n < run.count; n += rows_at_once)
    for (int g = 0; g < G; g += heads_at_once) {
      const int heads = G - g < heads_at_once ? G - g : heads_at_once;
      const int rows = run.count - n < rows_at_once ? run.count - n : rows_at_once;
      const int queries = rows * heads, whole_units = (queries + unit - 1) / unit * unit;
      float delta[kGradientTile], lse[kGradientTile];
      const T* q_of[kGradientTile] = {};
      const T* upstream_of[kGradientTile] = {};
      for (int m = 0; m < queries; ++m) {
        const std::int64_t row = run.row + n + m / heads;
        const int head = piece.kv_head * G + g + m % heads;
        const T* out = (const T*)piece.out + row * piece.out_stride + head * D;
        q_of[m] = (const T*)piece.q + row * piece.q_stride + head * D;
        upstream_of[m] = (const T*)piece.dout + row * piece.dout_stride + head * D;
        for_vectors(D, [&](std::int64_t d, auto lanes) {
          store(q + m * Dp + d, load(q_of[m] + d, lanes), lanes);
          store(upstream + m * Dp + d, load(upstream_of[m] + d, lanes), lanes);
        });
        for (std::int64_t d = 0; d < Dp; d += kLanes) store(dq + m * Dp + d, zero());
        delta[m] = reduce(D, [&](Vec total, std::int64_t d, auto lanes) {
          return fma(load(upstream + m * Dp + d, lanes), load(out + d, lanes), total);
        });
        lse[m] = piece.lse[row * piece.lse_stride + head];
      }
      for (int m = 0; m < whole_units; m += unit) {
        pair_rows(q_of + m, D, Dp, q_rows + m * Dp);
        pair_rows(upstream_of + m, D, Dp, upstream_rows + m * Dp);
      }

      // The next tile's rows, and where this one's will go.
      for (std::int32_t r = 0; r < rows_at_once; ++r) {
        const std::int64_t row = run.row + n + r, column = (piece.kv_head * G + g) * D;
        if (n + r < run.count) prefetch<true>(piece.dq + row * piece.dq_stride + column, heads * D);
        if (n + rows_at_once + r >= run.count || heads < G) continue;
        prefetch((const T*)piece.q + (row + rows_at_once) * piece.q_stride + column, heads * D);
        prefetch((const T*)piece.out + (row + rows_at_once) * piece.out_stride + column, heads * D);
        prefetch((const T*)piece.dout + (row + rows_at_once) * piece.dout_stride + column, heads * D);
      }

      const std::int32_t last = run.position + n + rows - 1;
      const std::int32_t first = first_visible(run.position + n, piece.window) / kLanes * kLanes;
      for (std::int32_t j = first; j <= last; j += step) {
        const std::int64_t offset = j - base;
        const int pages = last - j + 1 >= step ? kPagesPerStep : (last - j) / kLanes + 1;
        const int width = pages * kLanes;
        const T *key_pages[kPagesPerStep], *value_pages[kPagesPerStep], *key_rows[kPagesPerStep];
        for (int b = 0; b < pages; ++b) {
          key_pages[b] = path.keys_transposed + (offset + b * kLanes) * D;
          value_pages[b] = path.values_transposed + (offset + b * kLanes) * D;
          key_rows[b] = path.keys + (offset + b * kLanes) * Dp;
        }
        const std::int64_t row_units = Dp / unit;
        dot((const Word*)q, row_units, queries, key_pages, key_pages, pages, D / unit, p, step);
        dot((const Word*)upstream, row_units, queries, value_pages, value_pages, pages, D / unit, ds, step);

        const Vec scale = broadcast(piece.scale);
        const auto weights = [&](int m, int c, Vec& weight, Vec& gradient) {
          if (m >= queries) {
            weight = gradient = zero();
            return;
          }
          const std::int32_t position = run.position + n + m / heads;
          const std::int32_t visible = first_visible(position, piece.window);
          weight = exp(load(p + m * step + c) * scale + broadcast(-lse[m]));
          if (j + c < visible || j + c + kLanes - 1 > position)
            weight = within(lane_numbers(j + c), visible, position, weight, zero());
          gradient = weight * (load(ds + m * step + c) - broadcast(delta[m])) * scale;
        };
        // In place of the scores come p and ds as dq, dk and dv want them: of bfloat16, ds in units along the positions
        // where ds was, and p and ds in units of two queries, where p of the first and of the second was.
        for (int m = 0; m < whole_units; m += unit)
          for (int c = 0; c < width; c += kLanes) {
            Vec weight[unit], gradient[unit];
            for (int i = 0; i < unit; ++i) weights(m + i, c, weight[i], gradient[i]);
            for (int i = 0; i < unit; ++i) store((T*)(ds + (m + i) * step) + c, gradient[i]);
            if constexpr (unit == 1) {
              store(p + m * step + c, weight[0]);
            } else {
              store_units(p + m * step + c, pairs_of(weight[0], weight[1]));
              store_units(p + (m + 1) * step + c, pairs_of(gradient[0], gradient[1]));
            }
          }
        const Word* weight_units = (const Word*)p;
        const Word* gradient_units = (const Word*)(unit == 1 ? ds : p + step);
        const int seen = last - j + 1 < width ? last - j + 1 : width;
        mix(Mixture<T>{(const Word*)ds, step, 1, key_rows, key_rows, Dp, 0, seen}, queries, (int)Dp, dq, Dp);
        mix(Mixture<T>{gradient_units, 1, step * unit, q_blocks, q_blocks, Dp, 0, whole_units}, seen, (int)Dp,
            dkeys + offset * Dp, Dp);
        mix(Mixture<T>{weight_units, 1, step * unit, upstream_blocks, upstream_blocks, Dp, 0, whole_units}, seen, (int)Dp,
            dvalues + offset * Dp, Dp);
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
