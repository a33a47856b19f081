#include <cstring>

#include "backend/cpu/operations.h"

namespace foretoken::cpu {

void CpuBackend::gather_rows(View x, const std::int32_t* index, View y) {
  const std::size_t bytes = static_cast<std::size_t>(y.cols) * size_of(y.dtype);
  for_rows(y.rows, y.cols, [&](std::int64_t begin, std::int64_t rows, int) {
    for (std::int64_t m = begin; m < begin + rows; ++m)
      std::memcpy(y.slice_rows(m, 1).data, x.slice_rows(index[m], 1).data, bytes);
  });
}

void CpuBackend::scatter_add_rows(View dy, const std::int32_t* index, View dx) {
  for_rows(dy.rows, dy.cols, [&](std::int64_t begin, std::int64_t rows, int) {
    for (std::int64_t m = begin; m < begin + rows; ++m)
      kernels32_.add(dy.row<float>(m), dx.row<float>(index[m]), dy.cols);
  });
}

}  // namespace foretoken::cpu
