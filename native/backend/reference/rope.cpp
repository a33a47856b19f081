#include "backend/reference/kv_page.h"
#include "backend/reference/reference_backend.h"
#include "backend/reference/rms_norm.h"

namespace foretoken {

using namespace reference;

namespace {

/// (a, b) -> (a cos − b sin, b cos + a sin) for the halves a, b of x (D); `direction` −1 turns back.
Vector rotate(const Vector& x, const Vector& cos_sin, double direction) {
  const std::size_t half = x.size() / 2;
  Vector y(x.size());
  for (std::size_t i = 0; i < half; ++i) {
    const double cos = cos_sin[i], sin = direction * cos_sin[half + i];
    y[i] = x[i] * cos - x[half + i] * sin;
    y[half + i] = x[half + i] * cos + x[i] * sin;
  }
  return y;
}

// head -> rotate(norm(head) where there is a norm weight)
Vector head_forward(const Vector& x, View norm, double epsilon, const Vector& cos_sin) {
  if (!norm) return rotate(x, cos_sin, 1);
  const double rstd = reciprocal_rms(x, epsilon);
  Vector normed(x.size());
  for (std::size_t d = 0; d < x.size(); ++d) normed[d] = x[d] * rstd * get(norm, 0, d);
  return rotate(normed, cos_sin, 1);
}

// A rotation's transpose is the rotation back.
Vector head_backward(const Vector& dy, const Vector& x, View norm, double epsilon, const Vector& cos_sin, View dnorm) {
  const Vector dnormed = rotate(dy, cos_sin, -1);
  if (!norm) return dnormed;
  const double rstd = reciprocal_rms(x, epsilon);
  for (std::size_t d = 0; d < x.size(); ++d) add(dnorm, 0, d, dnormed[d] * x[d] * rstd);
  return rms_norm_input_gradient(x, get_row(norm, 0), rstd, dnormed);
}

/// Head h of row-major heads of D columns.
View head(const View& x, int h, const AttentionShape& shape) {
  return x.slice_cols(static_cast<std::int64_t>(h) * shape.head_dim, shape.head_dim);
}

}  // namespace

void ReferenceBackend::rope_forward(View qkv, View q_norm, View k_norm, double epsilon, const std::int32_t* positions,
                                    View rope, const AttentionShape& shape, const CacheWrites& writes, void* pages, View q,
                                    View k) {
  const std::int64_t P = page_positions();
  for (std::int64_t n = 0; n < qkv.rows; ++n) {
    const Vector cos_sin = get_row(rope, positions[n]);
    for (int h = 0; h < shape.heads; ++h)
      set_row(head(q, h, shape), n, head_forward(get_row(head(qkv, h, shape), n), q_norm, epsilon, cos_sin));
    for (int h = 0; h < shape.kv_heads; ++h) {
      const Vector key = head_forward(get_row(head(qkv, shape.heads + h, shape), n), k_norm, epsilon, cos_sin);
      const Vector value = get_row(head(qkv, shape.heads + shape.kv_heads + h, shape), n);
      if (k) set_row(head(k, h, shape), n, key);
      for (std::int32_t w = writes.row_begin[n]; w < writes.row_begin[n + 1]; ++w) {
        const std::int64_t page = writes.slots[w] / P, lane = writes.slots[w] % P;
        set_row(head(page_keys(pages, page, P, shape), h, shape), lane, key);
        set_row(head(page_values(pages, page, P, shape), h, shape), lane, value);
      }
    }
  }
}

void ReferenceBackend::rope_backward(View dq, View dk, View dv, View qkv, View q_norm, View k_norm, double epsilon,
                                     const std::int32_t* positions, View rope, const AttentionShape& shape, View dqkv,
                                     View dq_norm, View dk_norm) {
  for (std::int64_t n = 0; n < qkv.rows; ++n) {
    const Vector cos_sin = get_row(rope, positions[n]);
    for (int h = 0; h < shape.heads; ++h)
      set_row(head(dqkv, h, shape), n,
              head_backward(get_row(head(dq, h, shape), n), get_row(head(qkv, h, shape), n), q_norm, epsilon, cos_sin,
                            dq_norm));
    for (int h = 0; h < shape.kv_heads; ++h) {
      const int key = shape.heads + h, value = shape.heads + shape.kv_heads + h;
      set_row(head(dqkv, key, shape), n,
              head_backward(get_row(head(dk, h, shape), n), get_row(head(qkv, key, shape), n), k_norm, epsilon, cos_sin,
                            dk_norm));
      set_row(head(dqkv, value, shape), n, get_row(head(dv, h, shape), n));
    }
  }
}

}  // namespace foretoken
