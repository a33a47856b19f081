#pragma once

#include "backend/backend.h"

namespace foretoken {

/// Deals out matrices from one block of memory in a fixed order.
///
/// The same layout function runs twice: over an empty arena it only counts, which is the memory plan;
/// over a block of that size it hands out the views.
class Arena {
 public:
  Arena() = default;
  explicit Arena(void* base) : base_(static_cast<std::byte*>(base)) {}

  View matrix(DType dtype, std::int64_t rows, std::int64_t cols) {
    View view(base_ ? base_ + used_ : nullptr, dtype, rows, cols);
    take(static_cast<std::size_t>(rows * cols) * size_of(dtype));
    return view;
  }
  void* bytes(std::size_t count) {
    void* data = base_ ? base_ + used_ : nullptr;
    take(count);
    return data;
  }
  std::size_t used() const { return used_; }

 private:
  void take(std::size_t count) { used_ += (count + 63) / 64 * 64; }  // cache lines: no two views share one
  std::byte* base_ = nullptr;
  std::size_t used_ = 0;
};

}  // namespace foretoken
