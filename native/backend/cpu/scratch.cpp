#include <utility>

#include "backend/cpu/operations.h"

namespace foretoken::cpu {

namespace {

/// A vector that grows by doubling.
template <typename T>
std::size_t grown_bytes(std::int64_t count) { return 2 * static_cast<std::size_t>(count) * sizeof(T); }

}  // namespace

// What each operation asks of `scratch`, the greatest of it, and what is held beside it.
std::size_t CpuBackend::scratch_bytes_for(const PassExtent& pass) const {
  const AttentionShape& shape = pass.attention;
  const std::int64_t threads = team_.size(), D = shape.head_dim, C = pass.hidden, F = pass.feed_forward, V = pass.vocabulary;
  const std::int64_t q_cols = shape.heads * D, kv_cols = shape.kv_heads * D;
  const std::int64_t attention = attention_forward_scratch(kernels_, pass.longest_path, static_cast<int>(D));
  std::int64_t floats = threads * std::max({C, kv_cols, attention});
  std::size_t others = grown_bytes<QueryRow>(pass.rows);
  if (pass.sampling) floats = std::max(floats, threads * sample_scratch(V));
  if (pass.backward) {
    const std::int64_t pieces = (pass.rows + kSumRows - 1) / kSumRows;
    const std::int64_t paths = attention_paths_at_once(threads) * attention_path_floats(pass.longest_path, static_cast<int>(D)) +
                               threads * attention_backward_scratch(kernels_, pass.longest_path, static_cast<int>(D));
    std::int64_t largest = 0;  // elements of a parameter
    std::size_t workspace = 0;
    for (const auto& [outputs, inputs] : {std::pair{q_cols + 2 * kv_cols, C}, {C, q_cols}, {2 * F, C}, {C, F}, {V, C}}) {
      largest = std::max(largest, outputs * inputs);
      workspace = std::max(workspace, GradientWorkspace::bytes_for(matmul_, dtype_, team_.size(), outputs, inputs));
    }
    floats = std::max({floats, pieces * C, 3 * pieces * D, paths, 2 * (largest / kSquaresPiece + 1)});
    others += workspace + grown_bytes<QueryRun>(pass.runs + pass.rows / kPieceRows) + grown_bytes<std::int64_t>(pass.runs + 1);
  }
  return static_cast<std::size_t>(floats) * sizeof(float) + others;
}

}  // namespace foretoken::cpu
