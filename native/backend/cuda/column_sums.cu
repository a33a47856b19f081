#include "backend/cuda/column_sums.h"

#include "backend/cuda/cuda_backend.h"

namespace foretoken::cuda {

namespace {

// parts[p, c] = Σ over rows n of piece p, in order
template <typename T>
FORETOKEN_KERNEL void column_sums_kernel(Matrix<const T> x, std::int64_t rows, std::int64_t cols, float* parts) {
  const std::int64_t begin = band_index() * kSumRows, end = min_of<std::int64_t>(rows, begin + kSumRows);
  for (std::int64_t c = global_index(); c < cols; c += global_threads()) {
    float sum = 0;
    for (std::int64_t n = begin; n < end; ++n) sum += widen(x.row(n)[c]);
    parts[band_index() * cols + c] = sum;
  }
}

// total[c] += Σ over parts p, in order
FORETOKEN_KERNEL void add_parts_kernel(const float* parts, std::int64_t count, std::int64_t cols, float* total) {
  for (std::int64_t c = global_index(); c < cols; c += global_threads()) {
    float sum = total[c];
    for (std::int64_t p = 0; p < count; ++p) sum += parts[p * cols + c];
    total[c] = sum;
  }
}

constexpr int kThreads = 128;

}  // namespace

void CudaBackend::add_parts(const float* parts, std::int64_t count, std::int64_t cols, View total) {
  if (count == 0) return;
  FORETOKEN_LAUNCH(*device_, add_parts_kernel, (Grid{(cols + kThreads - 1) / kThreads, kThreads}), parts, count, cols,
                   total.as<float>());
}

void CudaBackend::bias_backward(View dy, View dbias) {
  const std::int64_t pieces = pieces_of(dy.rows), most_bands = 32768;
  float* parts = static_cast<float*>(scratch(static_cast<std::size_t>(pieces * dy.cols) * sizeof(float)));
  with_type(dy.dtype, [&](auto t) {
    using T = decltype(t);
    for (std::int64_t first = 0; first < pieces; first += most_bands) {
      const int bands = static_cast<int>(std::min(most_bands, pieces - first));
      const View some = dy.slice_rows(first * kSumRows, std::min(dy.rows - first * kSumRows, bands * kSumRows));
      FORETOKEN_LAUNCH(*device_, (column_sums_kernel<T>), (Grid{(dy.cols + kThreads - 1) / kThreads, kThreads, 0, bands}),
                       matrix<const T>(some), some.rows, some.cols, parts + first * dy.cols);
    }
  });
  add_parts(parts, pieces, dy.cols, dbias);
}

}  // namespace foretoken::cuda
