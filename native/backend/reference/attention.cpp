#include <algorithm>
#include <cmath>

#include "backend/reference/kv_page.h"
#include "backend/reference/reference_backend.h"

namespace foretoken {

using namespace reference;

namespace {

/// The first position that a token at `position` sees.
std::int64_t first_visible(std::int64_t position, const AttentionShape& shape) {
  return shape.window > 0 ? std::max<std::int64_t>(0, position - shape.window + 1) : 0;
}

/// Columns of head h in a matrix of heads of D columns.
View head(const View& x, std::int64_t h, const AttentionShape& shape) {
  return x.slice_cols(h * shape.head_dim, shape.head_dim);
}

}  // namespace

// scores s_j = scale · q · k_j, lse = log Σ exp s_j, out = Σ exp(s_j − lse) · v_j over the visible positions j
void ReferenceBackend::attention_forward(View q, const void* pages, const PagedPaths& paths,
                                         const AttentionShape& shape, View out, View lse) {
  const std::int64_t P = page_positions();
  for (std::int64_t r = 0; r < paths.runs_count; ++r) {
    const Run& run = paths.runs[r];
    const std::int32_t* table = paths.tables + run.table * paths.table_stride;
    for (std::int64_t i = 0; i < run.count; ++i) {
      const std::int64_t row = run.row + i, last = run.position + i, first = first_visible(last, shape);
      for (std::int64_t h = 0; h < shape.heads; ++h) {
        const std::int64_t kv_head = h / (shape.heads / shape.kv_heads);
        const Vector query = get_row(head(q, h, shape), row);
        Vector scores;
        for (std::int64_t j = first; j <= last; ++j)
          scores.push_back(shape.scale *
                           dot(query, get_row(head(page_keys(pages, table[j / P], P, shape), kv_head, shape), j % P)));
        const double max = *std::max_element(scores.begin(), scores.end());
        double sum = 0;
        for (double score : scores) sum += std::exp(score - max);
        const double log_sum = max + std::log(sum);
        Vector mix(shape.head_dim);
        for (std::int64_t j = first; j <= last; ++j) {
          const double probability = std::exp(scores[j - first] - log_sum);
          const Vector value = get_row(head(page_values(pages, table[j / P], P, shape), kv_head, shape), j % P);
          for (int d = 0; d < shape.head_dim; ++d) mix[d] += probability * value[d];
        }
        set_row(head(out, h, shape), row, mix);
        if (lse) set(lse, row, h, log_sum);
      }
    }
  }
}

// With p_j = exp(s_j − lse) and delta = dout · out:
// dv_j += p_j · dout, ds_j = p_j · (dout · v_j − delta), dq += scale · ds_j · k_j, dk_j += scale · ds_j · q
void ReferenceBackend::attention_backward(View q, View k, View v, View out, View dout, View lse,
                                          const PackedPaths& paths, const AttentionShape& shape, View dq, View dk,
                                          View dv) {
  fill_zero(dq);
  fill_zero(dk);
  fill_zero(dv);
  for (std::int64_t r = 0; r < paths.runs_count; ++r) {
    const Run& run = paths.runs[r];
    const std::int32_t* row_at = paths.path_rows + paths.path_begin[r];
    for (std::int64_t i = 0; i < run.count; ++i) {
      const std::int64_t row = run.row + i, last = run.position + i;
      for (std::int64_t h = 0; h < shape.heads; ++h) {
        const std::int64_t kv_head = h / (shape.heads / shape.kv_heads);
        const Vector query = get_row(head(q, h, shape), row);
        const Vector upstream = get_row(head(dout, h, shape), row);
        const double delta = dot(upstream, get_row(head(out, h, shape), row));
        for (std::int64_t j = first_visible(last, shape); j <= last; ++j) {
          const Vector key = get_row(head(k, kv_head, shape), row_at[j]);
          const Vector value = get_row(head(v, kv_head, shape), row_at[j]);
          const double probability = std::exp(shape.scale * dot(query, key) - get(lse, row, h));
          const double dscore = probability * (dot(upstream, value) - delta);
          for (int d = 0; d < shape.head_dim; ++d) {
            add(head(dv, kv_head, shape), row_at[j], d, probability * upstream[d]);
            add(head(dq, h, shape), row, d, shape.scale * dscore * key[d]);
            add(head(dk, kv_head, shape), row_at[j], d, shape.scale * dscore * query[d]);
          }
        }
      }
    }
  }
}

}  // namespace foretoken
