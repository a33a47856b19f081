#pragma once

#include <cstddef>
#include <cstdint>

#include "core/dtype.h"

namespace foretoken {

/// A row-major matrix somewhere in a backend's memory, not owned. A vector is a matrix of one row.
struct View {
  void* data = nullptr;
  DType dtype = DType::Float32;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t stride = 0;  // elements from one row to the next

  View() = default;
  View(void* data, DType dtype, std::int64_t rows, std::int64_t cols, std::int64_t stride)
      : data(data), dtype(dtype), rows(rows), cols(cols), stride(stride) {}
  View(void* data, DType dtype, std::int64_t rows, std::int64_t cols) : View(data, dtype, rows, cols, cols) {}

  explicit operator bool() const { return data != nullptr; }
  bool contiguous() const { return stride == cols || rows <= 1; }
  std::int64_t elements() const { return rows * cols; }

  template <typename T> T* as() const { return static_cast<T*>(data); }
  template <typename T> T* row(std::int64_t index) const { return static_cast<T*>(data) + index * stride; }

  View slice_rows(std::int64_t begin, std::int64_t count) const {
    return {static_cast<std::byte*>(data) + static_cast<std::size_t>(begin * stride) * size_of(dtype), dtype, count, cols, stride};
  }
  View slice_cols(std::int64_t begin, std::int64_t count) const {
    return {static_cast<std::byte*>(data) + static_cast<std::size_t>(begin) * size_of(dtype), dtype, rows, count, stride};
  }
};

}  // namespace foretoken
