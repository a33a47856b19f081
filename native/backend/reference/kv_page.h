#pragma once

#include "backend/backend.h"

namespace foretoken::reference {

/// A page is keys (P, K·D) and then values (P, K·D) in float64.
inline View page_keys(const void* pages, std::int64_t page, std::int64_t positions, const AttentionShape& shape) {
  const std::int64_t cols = static_cast<std::int64_t>(shape.kv_heads) * shape.head_dim;
  double* data = const_cast<double*>(static_cast<const double*>(pages)) + page * 2 * positions * cols;
  return {data, DType::Float64, positions, cols};
}

inline View page_values(const void* pages, std::int64_t page, std::int64_t positions, const AttentionShape& shape) {
  View view = page_keys(pages, page, positions, shape);
  view.data = view.as<double>() + positions * view.cols;
  return view;
}

}  // namespace foretoken::reference
