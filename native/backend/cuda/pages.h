#pragma once

#include "backend/backend.h"
#include "backend/cuda/device/number.h"

namespace foretoken::cuda {

inline constexpr int kPagePositions = 64;  // P

/// Where keys and values lie in a page: for each kv head its keys (P, D') and then its values (P, D'), row-major, D' being
/// D rounded up so that every row begins on 16 bytes. What lies between D and D' is never read.
struct PageLayout {
  int kv_heads, head_dim, row;  // row = D', in elements

  FORETOKEN_EITHER static PageLayout of(int kv_heads, int head_dim, int element_bytes) {
    const int whole = 16 / element_bytes;
    return {kv_heads, head_dim, (head_dim + whole - 1) / whole * whole};
  }
  FORETOKEN_EITHER std::int64_t elements() const { return std::int64_t{2} * kv_heads * kPagePositions * row; }

  /// Keys (P, D') of a page's kv head.
  template <typename T>
  FORETOKEN_EITHER T* keys(T* pages, std::int64_t page, int kv_head) const {
    return pages + page * elements() + std::int64_t{2} * kv_head * kPagePositions * row;
  }
  template <typename T>
  FORETOKEN_EITHER T* values(T* pages, std::int64_t page, int kv_head) const {
    return keys(pages, page, kv_head) + std::int64_t{kPagePositions} * row;
  }
};

inline PageLayout page_layout(const AttentionShape& shape, DType dtype) {
  return PageLayout::of(shape.kv_heads, shape.head_dim, static_cast<int>(size_of(dtype)));
}

}  // namespace foretoken::cuda
