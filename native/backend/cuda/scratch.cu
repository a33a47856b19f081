#include "backend/cuda/attention_backward.h"
#include "backend/cuda/attention_forward.h"
#include "backend/cuda/column_sums.h"
#include "backend/cuda/cuda_backend.h"

namespace foretoken::cuda {

// What each operation asks of `scratch`, the greatest of it, and what the library of products holds beside it.
std::size_t CudaBackend::scratch_bytes_for(const PassExtent& pass) const {
  const AttentionShape& shape = pass.attention;
  const std::int64_t N = pass.rows, C = pass.hidden, F = pass.feed_forward, V = pass.vocabulary;
  const std::int64_t qkv = std::int64_t{shape.heads + 2 * shape.kv_heads} * shape.head_dim;
  // Sums with a bias, where the library does not add it before it rounds (linear.cu).
  std::int64_t words = library_ ? N * ((pass.biased + 7) / 8 * 8) : 0;
  std::size_t attention = 0;
  if (pass.sampling)
    words = std::max({words, most_partial_floats(*device_, pass.runs, pass.longest_path, shape), 2 * ((V + 31) / 32)});
  if (pass.backward) {
    const std::int64_t pieces = pieces_of(N), largest = std::max({qkv * C, F * C, V * C});
    words = std::max({words, pieces * std::max({C, qkv, 2 * F}), pieces * 2 * shape.head_dim, 2 * (largest / kSquaresPiece + 1)});
    with_type(dtype_, [&](auto t) {
      for (const bool warpgroups : {false, warpgroup_attention_})
        attention = std::max(attention, attention_backward_bytes<decltype(t)>(shape, N, pass.runs, warpgroups));
    });
  }
  return std::max(attention, static_cast<std::size_t>(words) * sizeof(float)) + (library_ ? library_->workspace_bytes() : 0);
}

}  // namespace foretoken::cuda
