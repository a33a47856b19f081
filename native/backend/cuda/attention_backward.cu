#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/device/launch.h"

namespace foretoken::cuda {

namespace {

constexpr int kThreads = 64;
constexpr int kMostHeadDim = 256;

template <typename T>
struct Gradients {
  Matrix<const T> q, k, v, out;
  Matrix<const float> dout, lse;
  PackedPaths paths;
  AttentionShape shape;
};

/// Σ a · b over D in order.
template <typename A, typename B>
FORETOKEN_DEVICE float dot(const A* a, const B* b, int count) {
  float sum = 0;
  for (int d = 0; d < count; ++d) sum = fmaf(widen(a[d]), widen(b[d]), sum);
  return sum;
}

FORETOKEN_DEVICE std::int64_t first_visible(std::int64_t position, int window) {
  return window > 0 ? max_of<std::int64_t>(0, position - window + 1) : 0;
}

// With p_j = exp(s_j − lse) and delta = dout · out: ds_j = p_j · (dout · v_j − delta), dq = Σ scale · ds_j · k_j over
// positions in order; a thread per row and head.
template <typename T>
FORETOKEN_KERNEL void attention_backward_q_kernel(Gradients<T> g, Matrix<float> dq) {
  const AttentionShape& s = g.shape;
  const int D = s.head_dim;
  const Run run = g.paths.runs[block_index()];
  const std::int32_t* row_at = g.paths.path_rows + g.paths.path_begin[block_index()];
  for (std::int64_t item = thread_index(); item < std::int64_t{run.count} * s.heads; item += block_threads()) {
    const std::int64_t i = item / s.heads, n = run.row + i, last = run.position + i;
    const int h = static_cast<int>(item % s.heads), kv_head = h / (s.heads / s.kv_heads);
    const T* query = g.q.row(n) + h * D;
    const float* upstream = g.dout.row(n) + h * D;
    const float delta = dot(upstream, g.out.row(n) + h * D, D), lse = g.lse.row(n)[h];
    float sum[kMostHeadDim];
    for (int d = 0; d < D; ++d) sum[d] = 0;
    for (std::int64_t j = first_visible(last, s.window); j <= last; ++j) {
      const T* key = g.k.row(row_at[j]) + kv_head * D;
      const float weight = expf(fmaf(dot(query, key, D), s.scale, -lse));
      const float dscore = s.scale * weight * (dot(upstream, g.v.row(row_at[j]) + kv_head * D, D) - delta);
      for (int d = 0; d < D; ++d) sum[d] = fmaf(dscore, widen(key[d]), sum[d]);
    }
    for (int d = 0; d < D; ++d) dq.row(n)[h * D + d] = sum[d];
  }
}

// dv_j = Σ p_j · dout and dk_j = Σ scale · ds_j · q over the queries that see position j: runs of the tree in order, rows
// in order, heads of the group in order; a thread per row and kv head.
template <typename T>
FORETOKEN_KERNEL void attention_backward_kv_kernel(Gradients<T> g, Matrix<float> dk, Matrix<float> dv) {
  const AttentionShape& s = g.shape;
  const int D = s.head_dim, group = s.heads / s.kv_heads;
  const std::int64_t own = block_index();
  std::int64_t tree = 0;
  while (g.paths.trees[tree + 1] <= own) ++tree;
  const Run run = g.paths.runs[own];
  for (std::int64_t item = thread_index(); item < std::int64_t{run.count} * s.kv_heads; item += block_threads()) {
    const std::int64_t i = item / s.kv_heads, n = run.row + i, position = run.position + i;
    const int kv_head = static_cast<int>(item % s.kv_heads);
    const T* key = g.k.row(n) + kv_head * D;
    const T* value = g.v.row(n) + kv_head * D;
    float dkey[kMostHeadDim], dvalue[kMostHeadDim];
    for (int d = 0; d < D; ++d) dkey[d] = dvalue[d] = 0;
    for (std::int64_t r = own; r < g.paths.trees[tree + 1]; ++r) {
      const Run other = g.paths.runs[r];
      if (other.position + other.count <= position || g.paths.path_rows[g.paths.path_begin[r] + position] != n) continue;
      for (std::int64_t m = max_of<std::int64_t>(0, position - other.position); m < other.count; ++m) {
        if (first_visible(other.position + m, s.window) > position) break;
        const std::int64_t row = other.row + m;
        for (int h = kv_head * group; h < (kv_head + 1) * group; ++h) {
          const T* query = g.q.row(row) + h * D;
          const float* upstream = g.dout.row(row) + h * D;
          const float weight = expf(fmaf(dot(query, key, D), s.scale, -g.lse.row(row)[h]));
          const float delta = dot(upstream, g.out.row(row) + h * D, D);
          const float dscore = s.scale * weight * (dot(upstream, value, D) - delta);
          for (int d = 0; d < D; ++d) {
            dvalue[d] = fmaf(weight, upstream[d], dvalue[d]);
            dkey[d] = fmaf(dscore, widen(query[d]), dkey[d]);
          }
        }
      }
    }
    for (int d = 0; d < D; ++d) {
      dk.row(n)[kv_head * D + d] = dkey[d];
      dv.row(n)[kv_head * D + d] = dvalue[d];
    }
  }
}

}  // namespace

void CudaBackend::attention_backward(View q, View k, View v, View out, View dout, View lse, const PackedPaths& paths,
                                     const AttentionShape& shape, View dq, View dk, View dv) {
  if (shape.head_dim > kMostHeadDim)
    fail(ErrorCode::UnsupportedConfig, "the GPU has kernels for heads of up to 256 columns, not for ", shape.head_dim);
  with_type(dtype_, [&](auto t) {
    using T = decltype(t);
    const Gradients<T> gradients{matrix<const T>(q), matrix<const T>(k), matrix<const T>(v), matrix<const T>(out),
                                 matrix<const float>(dout), matrix<const float>(lse), paths, shape};
    FORETOKEN_LAUNCH(*device_, (attention_backward_q_kernel<T>), (Grid{paths.runs_count, kThreads}), gradients, matrix<float>(dq));
    FORETOKEN_LAUNCH(*device_, (attention_backward_kv_kernel<T>), (Grid{paths.runs_count, kThreads}), gradients,
                     matrix<float>(dk), matrix<float>(dv));
  });
}

}  // namespace foretoken::cuda
