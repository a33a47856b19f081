#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/device/launch.h"
#include "backend/cuda/pages.h"

namespace foretoken::cuda {

namespace {

constexpr int kThreads = 64;
constexpr int kMostHeadDim = 256;

// scores s_j = scale · q · k_j, out = Σ exp(s_j − lse) · v_j: a thread per row and head, position after position with a
// running maximum; sums over D in order. Everything is a function of D and of absolute positions.
template <typename T>
FORETOKEN_KERNEL void attention_forward_kernel(Matrix<const T> q, const T* pages, PagedPaths paths, AttentionShape shape,
                                               PageLayout layout, Matrix<T> out, Matrix<float> lse) {
  const int D = shape.head_dim;
  const Run run = paths.runs[block_index()];
  const std::int32_t* table = paths.tables + run.table * paths.table_stride;
  for (std::int64_t item = thread_index(); item < std::int64_t{run.count} * shape.heads; item += block_threads()) {
    const std::int64_t i = item / shape.heads, n = run.row + i;
    const int h = static_cast<int>(item % shape.heads), kv_head = h / (shape.heads / shape.kv_heads);
    const std::int64_t last = run.position + i;
    const std::int64_t first = shape.window > 0 ? max_of<std::int64_t>(0, last - shape.window + 1) : 0;
    const T* query = q.row(n) + h * D;
    float mix[kMostHeadDim];
    for (int d = 0; d < D; ++d) mix[d] = 0;
    float greatest = -INFINITY, sum = 0;
    for (std::int64_t j = first; j <= last; ++j) {
      const std::int64_t page = table[j / kPagePositions], lane = j % kPagePositions;
      const T* key = layout.keys(pages, page, kv_head) + lane * layout.row;
      const T* value = layout.values(pages, page, kv_head) + lane * layout.row;
      float score = 0;
      for (int d = 0; d < D; ++d) score = fmaf(widen(query[d]), widen(key[d]), score);
      score *= shape.scale;
      if (score > greatest) {
        const float shrink = expf(greatest - score);
        sum *= shrink;
        for (int d = 0; d < D; ++d) mix[d] *= shrink;
        greatest = score;
      }
      const float weight = expf(score - greatest);
      sum += weight;
      for (int d = 0; d < D; ++d) mix[d] = fmaf(weight, widen(value[d]), mix[d]);
    }
    T* target = out.row(n) + h * D;
    for (int d = 0; d < D; ++d) target[d] = narrow<T>(mix[d] / sum);
    if (lse.data) lse.row(n)[h] = greatest + logf(sum);
  }
}

}  // namespace

void CudaBackend::attention_forward(View q, const void* pages, const PagedPaths& paths, const AttentionShape& shape,
                                    View out, View lse) {
  if (shape.head_dim > kMostHeadDim)
    fail(ErrorCode::UnsupportedConfig, "the GPU has kernels for heads of up to 256 columns, not for ", shape.head_dim);
  with_type(dtype_, [&](auto t) {
    using T = decltype(t);
    FORETOKEN_LAUNCH(*device_, (attention_forward_kernel<T>), (Grid{paths.runs_count, kThreads}), matrix<const T>(q),
                     static_cast<const T*>(pages), paths, shape, page_layout(shape, dtype_), matrix<T>(out), matrix<float>(lse));
  });
}

}  // namespace foretoken::cuda
