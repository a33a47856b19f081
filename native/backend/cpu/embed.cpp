#include "backend/cpu/convert.h"
#include "backend/cpu/operations.h"

namespace foretoken::cpu {

void CpuBackend::embed_forward(const std::int32_t* tokens, View table, View x) {
  const bool widens = table.dtype == DType::BFloat16 || (table.dtype == DType::Float32 && dtype_ == DType::Float32);
  const bool rounds = table.dtype == DType::Float32 && dtype_ == DType::BFloat16;
  const ConvertRow to_activation = converter(table.dtype, dtype_);
  float* rounded = scratch(team_.size(), x.cols);  // a row of T for each worker, where the table has another dtype
  for_rows(x.rows, x.cols, [&](std::int64_t begin, std::int64_t rows, int worker) {
    for (std::int64_t n = begin; n < begin + rows; ++n) {
      const void* source = table.slice_rows(tokens[n], 1).data;
      if (widens) kernels_of(table.dtype).widen(source, x.row<float>(n), x.cols);
      else if (rounds) kernels_.round(static_cast<const float*>(source), x.row<float>(n), x.cols);
      else {
        to_activation(source, rounded + worker * x.cols, x.cols);
        kernels_.widen(rounded + worker * x.cols, x.row<float>(n), x.cols);
      }
    }
  });
}

// Tasks are bands of columns, each of which goes through the tokens in order.
void CpuBackend::embed_backward(const std::int32_t* tokens, View dx, View dtable) {
  constexpr std::int64_t band = 64;
  team_.parallel_for((dx.cols + band - 1) / band, [&](std::int64_t task, int) {
    const std::int64_t begin = task * band, cols = std::min(band, dx.cols - begin);
    for (std::int64_t n = 0; n < dx.rows; ++n)
      kernels32_.add(dx.row<float>(n) + begin, dtable.row<float>(tokens[n]) + begin, cols);
  });
}

}  // namespace foretoken::cpu
