#pragma once

#include "backend/cpu/kernels/attention_tiles.h"

// With p_j = exp(s_j − lse) and δ = dout · out: dv_j += p_j · dout, ds_j = scale · p_j · (dout · v_j − δ),
// dq += ds_j · k_j, dk_j += ds_j · q.
//
// Orders of sums: dq over positions; dk and dv of a run over its rows and, within a row, its query heads; then over the
// runs of the tree. All are functions of the tree alone.

namespace foretoken::cpu {
namespace {

constexpr int kPagesPerStep = 4;

template <typename T>
void attention_backward(const AttentionTree& tree) {
  const int D = tree.head_dim, G = tree.group;
  const std::int64_t Dp = padded(D);
  std::int64_t longest = 0;
  for (std::int64_t i = 0; i < tree.runs_count; ++i) {
    const QueryRun& run = tree.runs[i];
    if (run.position + run.count > longest) longest = run.position + run.count;
  }
  const std::int64_t capacity = padded(longest) + kLanes;

  // All of the run's path, from the page of the first position it sees.
  float* keys = tree.scratch;                            // (positions, Dp)
  float* keys_transposed = keys + capacity * Dp;         // (pages, D, 16)
  float* values_transposed = keys_transposed + capacity * Dp;
  float* dkeys = values_transposed + capacity * Dp;      // (positions, Dp)
  float* dvalues = dkeys + capacity * Dp;
  // One tile of queries.
  float* q = dvalues + capacity * Dp;                    // (kQueryTile, Dp)
  float* upstream = q + kQueryTile * Dp;
  float* dq = upstream + kQueryTile * Dp;
  float* p = dq + kQueryTile * Dp;                       // (kQueryTile, 16 kPagesPerStep)
  float* ds = p + kQueryTile * kPagesPerStep * kLanes;
  constexpr std::int64_t step = kPagesPerStep * kLanes;

  for (std::int64_t i = 0; i < tree.runs_count; ++i)
    for (std::int32_t n = 0; n < tree.runs[i].count; ++n) {
      const std::int64_t row = tree.runs[i].row + n;
      float* dk = tree.dk + row * tree.dk_stride + tree.kv_head * D;
      float* dv = tree.dv + row * tree.dv_stride + tree.kv_head * D;
      for_vectors(D, [&](std::int64_t d, auto lanes) {
        store(dk + d, zero(), lanes);
        store(dv + d, zero(), lanes);
      });
    }

  for (std::int64_t i = 0; i < tree.runs_count; ++i) {
    const QueryRun& run = tree.runs[i];
    const std::int32_t end = run.position + run.count;
    const std::int32_t base = first_visible(run.position, tree.window) / kLanes * kLanes;
    const std::int64_t positions = padded(end) - base;

    for (std::int64_t j = 0; j < positions; ++j) {
      float* key = keys + j * Dp;
      float* key_column = keys_transposed + j / kLanes * kLanes * D + j % kLanes;
      float* value_column = values_transposed + j / kLanes * kLanes * D + j % kLanes;
      for (std::int64_t d = 0; d < Dp; d += kLanes) {
        store(key + d, zero());
        store(dkeys + j * Dp + d, zero());
        store(dvalues + j * Dp + d, zero());
      }
      if (base + j >= end) {
        for (int d = 0; d < D; ++d) key_column[d * kLanes] = value_column[d * kLanes] = 0;
        continue;
      }
      const std::int64_t row = run.path_rows[base + j];
      const T* k = (const T*)tree.k + row * tree.k_stride + tree.kv_head * D;
      const T* v = (const T*)tree.v + row * tree.v_stride + tree.kv_head * D;
      for_vectors(D, [&](std::int64_t d, auto lanes) { store(key + d, load(k + d, lanes), lanes); });
      for (int d = 0; d < D; ++d) {
        key_column[d * kLanes] = key[d];
        value_column[d * kLanes] = to_float(v[d]);
      }
    }

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
          const int head = tree.kv_head * G + g + m % heads;
          const T* q_row = (const T*)tree.q + row * tree.q_stride + head * D;
          const T* out = (const T*)tree.out + row * tree.out_stride + head * D;
          const float* dout = tree.dout + row * tree.dout_stride + head * D;
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
          lse[m] = tree.lse[row * tree.lse_stride + head];
        }

        const std::int32_t last = run.position + n + rows - 1;
        const std::int32_t first = first_visible(run.position + n, tree.window) / kLanes * kLanes;
        for (std::int32_t j = first; j <= last; j += step) {
          const std::int64_t offset = j - base;
          const int pages = last - j + 1 >= step ? kPagesPerStep : (last - j) / kLanes + 1;
          const int width = pages * kLanes;
          const float* key_pages[kPagesPerStep];
          const float* value_pages[kPagesPerStep];
          for (int b = 0; b < pages; ++b) {
            key_pages[b] = keys_transposed + (offset + b * kLanes) * D;
            value_pages[b] = values_transposed + (offset + b * kLanes) * D;
          }
          dot(q, Dp, queries, key_pages, pages, D, p, step);
          dot(upstream, Dp, queries, value_pages, pages, D, ds, step);
          const Vec scale = broadcast(tree.scale);
          for (int m = 0; m < queries; ++m) {
            const std::int32_t position = run.position + n + m / heads;
            const std::int32_t visible = first_visible(position, tree.window);
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
          mix(ds, step, 1, keys + offset * Dp, Dp, seen, queries, (int)Dp, dq, Dp);
          mix(ds, 1, step, q, Dp, queries, seen, (int)Dp, dkeys + offset * Dp, Dp);
          mix(p, 1, step, upstream, Dp, queries, seen, (int)Dp, dvalues + offset * Dp, Dp);
        }

        for (int m = 0; m < queries; ++m) {
          float* row = tree.dq + (run.row + n + m / heads) * tree.dq_stride + (tree.kv_head * G + g + m % heads) * D;
          for_vectors(D, [&](std::int64_t d, auto lanes) { store(row + d, load(dq + m * Dp + d, lanes), lanes); });
        }
      }

    for (std::int32_t j = base; j < end; ++j) {
      const std::int64_t row = run.path_rows[j];
      float* dk = tree.dk + row * tree.dk_stride + tree.kv_head * D;
      float* dv = tree.dv + row * tree.dv_stride + tree.kv_head * D;
      const float* dkey = dkeys + (j - base) * Dp;
      const float* dvalue = dvalues + (j - base) * Dp;
      for_vectors(D, [&](std::int64_t d, auto lanes) {
        store(dk + d, load(dk + d, lanes) + load(dkey + d, lanes), lanes);
        store(dv + d, load(dv + d, lanes) + load(dvalue + d, lanes), lanes);
      });
    }
  }
}

}  // namespace
}  // namespace foretoken::cpu
