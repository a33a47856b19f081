#pragma once

#include <vector>

#include "backend/view.h"
#include "core/dtype.h"

namespace foretoken::reference {

using Vector = std::vector<double>;

/// x[row, col] of any dtype.
inline double get(const View& x, std::int64_t row, std::int64_t col) {
  switch (x.dtype) {
    case DType::Float64: return x.row<double>(row)[col];
    case DType::Float32: return x.row<float>(row)[col];
    case DType::BFloat16: return static_cast<float>(x.row<BFloat16>(row)[col]);
    case DType::Float16: return static_cast<float>(x.row<Float16>(row)[col]);
  }
  return 0;
}

/// x[row, col] = value, to nearest even; the 16-bit types are reached by way of float32.
inline void set(const View& x, std::int64_t row, std::int64_t col, double value) {
  switch (x.dtype) {
    case DType::Float64: x.row<double>(row)[col] = value; break;
    case DType::Float32: x.row<float>(row)[col] = static_cast<float>(value); break;
    case DType::BFloat16: x.row<BFloat16>(row)[col] = BFloat16(static_cast<float>(value)); break;
    case DType::Float16: x.row<Float16>(row)[col] = Float16(static_cast<float>(value)); break;
  }
}

inline void add(const View& x, std::int64_t row, std::int64_t col, double value) {
  set(x, row, col, get(x, row, col) + value);
}

inline Vector get_row(const View& x, std::int64_t row) {
  Vector values(static_cast<std::size_t>(x.cols));
  for (std::int64_t c = 0; c < x.cols; ++c) values[c] = get(x, row, c);
  return values;
}

inline void set_row(const View& x, std::int64_t row, const Vector& values) {
  for (std::int64_t c = 0; c < x.cols; ++c) set(x, row, c, values[c]);
}

inline void add_row(const View& x, std::int64_t row, const Vector& values) {
  for (std::int64_t c = 0; c < x.cols; ++c) add(x, row, c, values[c]);
}

inline double dot(const Vector& a, const Vector& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace foretoken::reference
