#include "backend/cuda/column_sums.h"
#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/device/reduce.h"

namespace foretoken::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kMostPairs = 4;  // of a lane: heads of up to 256 columns

/// One head of one row, shared by a warp: lane l holds the pairs (i, D/2 + i) of i = l, l + 32, …
struct Head {
  float first[kMostPairs], second[kMostPairs];
};

template <typename T>
FORETOKEN_DEVICE Head load_head(const T* x, int half) {
  Head head;
#pragma unroll
  for (int j = 0; j < kMostPairs; ++j) {
    const int i = lane_index() + j * kWarp;
    head.first[j] = i < half ? widen(x[i]) : 0.0f;
    head.second[j] = i < half ? widen(x[half + i]) : 0.0f;
  }
  return head;
}

template <typename T>
FORETOKEN_DEVICE void store_head(T* y, int half, const Head& head) {
#pragma unroll
  for (int j = 0; j < kMostPairs; ++j) {
    const int i = lane_index() + j * kWarp;
    if (i < half) {
      y[i] = narrow<T>(head.first[j]);
      y[half + i] = narrow<T>(head.second[j]);
    }
  }
}

/// Σ a · b: a lane's pairs in order, then the warp's butterfly. A function of D only.
FORETOKEN_DEVICE float dot(const Head& a, const Head& b) {
  float sum = 0;
#pragma unroll
  for (int j = 0; j < kMostPairs; ++j) {
    sum = fmaf(a.first[j], b.first[j], sum);
    sum = fmaf(a.second[j], b.second[j], sum);
  }
  return sum_warp(sum);
}

/// Rotates each pair by the angle whose cos and sin the table has; direction −1 rotates back.
FORETOKEN_DEVICE Head rotate(const Head& x, const Head& cos_sin, float direction) {
  Head y;
#pragma unroll
  for (int j = 0; j < kMostPairs; ++j) {
    const float cos = cos_sin.first[j], sin = direction * cos_sin.second[j];
    y.first[j] = fmaf(x.first[j], cos, -(x.second[j] * sin));
    y.second[j] = fmaf(x.second[j], cos, x.first[j] * sin);
  }
  return y;
}

FORETOKEN_DEVICE float reciprocal_rms(const Head& x, int half, float epsilon) {
  return 1.0f / sqrtf(dot(x, x) / static_cast<float>(2 * half) + epsilon);
}

struct HeadShape {
  int heads, kv_heads, head_dim;
};

// q, k = rotate(norm(qkv) where there is a norm weight); a warp per head of a row. Moves 2 N·(H + K)·D elements.
template <typename T>
FORETOKEN_KERNEL void rope_forward_kernel(Matrix<const T> qkv, std::int64_t rows, HeadShape shape, const float* q_norm,
                                          const float* k_norm, float epsilon, const std::int32_t* positions,
                                          Matrix<const float> rope, Matrix<T> q, Matrix<T> k) {
  const int D = shape.head_dim, half = D / 2, heads = shape.heads + shape.kv_heads;
  const std::int64_t item = block_index() * kWarps + warp_index();
  const std::int64_t n = item / heads;
  if (n >= rows) return;  // a whole warp
  const int head = static_cast<int>(item - n * heads);
  const bool is_q = head < shape.heads;
  const float* norm = is_q ? q_norm : k_norm;
  Head x = load_head(qkv.row(n) + head * D, half);
  if (norm) {
    const float r = reciprocal_rms(x, half, epsilon);
    const Head weight = load_head(norm, half);
#pragma unroll
    for (int j = 0; j < kMostPairs; ++j) {
      x.first[j] = x.first[j] * r * weight.first[j];
      x.second[j] = x.second[j] * r * weight.second[j];
    }
  }
  const Head y = rotate(x, load_head(rope.row(positions[n]), half), 1);
  store_head(is_q ? q.row(n) + head * D : k.row(n) + (head - shape.heads) * D, half, y);
}

// dqkv of the above; a block per piece of kSumRows rows, its warps taking the heads of all rows in turn. Where there are
// norm weights, parts[piece] (2, D) are their gradients: each warp sums its heads in order, then warp after warp.
template <typename T>
FORETOKEN_KERNEL void rope_backward_kernel(Matrix<const float> dq, Matrix<const float> dk, Matrix<const float> dv,
                                           Matrix<const T> qkv, std::int64_t rows, HeadShape shape, const float* q_norm,
                                           const float* k_norm, float epsilon, const std::int32_t* positions,
                                           Matrix<const float> rope, Matrix<T> dqkv, float* parts) {
  const int D = shape.head_dim, half = D / 2, H = shape.heads, K = shape.kv_heads;
  float* sums = shared_memory<float>();  // (warps, 2, D), as far as there are norms
  if (q_norm)
    for (int i = thread_index(); i < kWarps * 2 * D; i += block_threads()) sums[i] = 0;
  sync_block();
  const std::int64_t begin = block_index() * kSumRows, end = min_of<std::int64_t>(rows, begin + kSumRows);
  for (std::int64_t item = warp_index(); item < (end - begin) * (H + 2 * K); item += kWarps) {
    const std::int64_t n = begin + item / (H + 2 * K);
    const int head = static_cast<int>(item % (H + 2 * K));
    T* target = dqkv.row(n) + head * D;
    if (head >= H + K) {
      store_head(target, half, load_head(dv.row(n) + (head - H - K) * D, half));
      continue;
    }
    const bool is_q = head < H;
    const float* norm = is_q ? q_norm : k_norm;
    const Head upstream = load_head(is_q ? dq.row(n) + head * D : dk.row(n) + (head - H) * D, half);
    Head d = rotate(upstream, load_head(rope.row(positions[n]), half), -1);
    if (norm) {
      Head x = load_head(qkv.row(n) + head * D, half);
      const Head weight = load_head(norm, half);
      const float r = reciprocal_rms(x, half, epsilon);
      float* sum = sums + (warp_index() * 2 + (is_q ? 0 : 1)) * D;
#pragma unroll
      for (int j = 0; j < kMostPairs; ++j) {
        const int i = lane_index() + j * kWarp;
        x.first[j] *= r;
        x.second[j] *= r;
        if (i < half) {
          sum[i] = fmaf(d.first[j], x.first[j], sum[i]);
          sum[half + i] = fmaf(d.second[j], x.second[j], sum[half + i]);
        }
        d.first[j] *= weight.first[j];
        d.second[j] *= weight.second[j];
      }
      const float mean = dot(d, x) / static_cast<float>(D);
#pragma unroll
      for (int j = 0; j < kMostPairs; ++j) {
        d.first[j] = r * fmaf(-x.first[j], mean, d.first[j]);
        d.second[j] = r * fmaf(-x.second[j], mean, d.second[j]);
      }
    }
    store_head(target, half, d);
  }
  if (!q_norm) return;
  sync_block();
  for (int i = thread_index(); i < 2 * D; i += block_threads()) {
    float sum = 0;
    for (int w = 0; w < kWarps; ++w) sum += sums[w * 2 * D + i];
    parts[block_index() * 2 * D + i] = sum;
  }
}

// dq_norm, dk_norm += the parts, in order
FORETOKEN_KERNEL void add_norm_parts_kernel(const float* parts, std::int64_t pieces, int head_dim, float* dq_norm, float* dk_norm) {
  for (int i = thread_index(); i < 2 * head_dim; i += block_threads()) {
    float* total = i < head_dim ? dq_norm + i : dk_norm + (i - head_dim);
    float sum = *total;
    for (std::int64_t p = 0; p < pieces; ++p) sum += parts[p * 2 * head_dim + i];
    *total = sum;
  }
}

HeadShape head_shape(const AttentionShape& shape) {
  if (shape.head_dim > 2 * kMostPairs * kWarp)
    fail(ErrorCode::UnsupportedConfig, "the GPU has kernels for heads of up to 256 columns, not for ", shape.head_dim);
  return {shape.heads, shape.kv_heads, shape.head_dim};
}

}  // namespace

void CudaBackend::rope_forward(View qkv, View q_norm, View k_norm, double epsilon, const std::int32_t* positions,
                               View rope, const AttentionShape& shape, View q, View k) {
  const HeadShape heads = head_shape(shape);
  const std::int64_t items = qkv.rows * (shape.heads + shape.kv_heads);
  with_type(dtype_, [&](auto t) {
    using T = decltype(t);
    FORETOKEN_LAUNCH(*device_, (rope_forward_kernel<T>), (Grid{(items + kWarps - 1) / kWarps, kThreads}), matrix<const T>(qkv),
                     qkv.rows, heads, q_norm.as<float>(), k_norm.as<float>(), static_cast<float>(epsilon), positions,
                     matrix<const float>(rope), matrix<T>(q), matrix<T>(k));
  });
}

void CudaBackend::rope_backward(View dq, View dk, View dv, View qkv, View q_norm, View k_norm, double epsilon,
                                const std::int32_t* positions, View rope, const AttentionShape& shape, View dqkv,
                                View dq_norm, View dk_norm) {
  const HeadShape heads = head_shape(shape);
  const std::int64_t pieces = pieces_of(dqkv.rows);
  const std::size_t norm_floats = q_norm ? static_cast<std::size_t>(2 * shape.head_dim) : 0;
  float* parts = static_cast<float*>(scratch(static_cast<std::size_t>(pieces) * norm_floats * sizeof(float)));
  with_type(dtype_, [&](auto t) {
    using T = decltype(t);
    FORETOKEN_LAUNCH(*device_, (rope_backward_kernel<T>), (Grid{pieces, kThreads, kWarps * norm_floats * sizeof(float)}),
                     matrix<const float>(dq), matrix<const float>(dk), matrix<const float>(dv), matrix<const T>(qkv), dqkv.rows,
                     heads, q_norm.as<float>(), k_norm.as<float>(), static_cast<float>(epsilon), positions,
                     matrix<const float>(rope), matrix<T>(dqkv), parts);
  });
  if (q_norm && pieces > 0)
    FORETOKEN_LAUNCH(*device_, add_norm_parts_kernel, (Grid{1, kThreads}), parts, pieces, shape.head_dim,
                     dq_norm.as<float>(), dk_norm.as<float>());
}

}  // namespace foretoken::cuda
