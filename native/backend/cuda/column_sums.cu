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

constexpr int kThreads = 128;
constexpr int kAddWarps = 16;

// total[c] += Σ over parts p: warp w adds up parts w, w + 16, … in order, then warp after warp. A block has 32 columns.
FORETOKEN_KERNEL void add_parts_kernel(const float* parts, std::int64_t count, std::int64_t cols, float* total) {
  FORETOKEN_SHARED float sums[kAddWarps][kWarp];
  const std::int64_t c = block_index() * kWarp + lane_index();
  float sum = 0;
  if (c < cols)
    for (std::int64_t p = warp_index(); p < count; p += kAddWarps) sum += parts[p * cols + c];
  sums[warp_index()][lane_index()] = sum;
  sync_block();
  if (warp_index() > 0 || c >= cols) return;
  sum = total[c];
  for (int w = 0; w < kAddWarps; ++w) sum += sums[w][lane_index()];
  total[c] = sum;
}

}  // namespace

void CudaBackend::add_parts(const float* parts, std::int64_t count, std::int64_t cols, View total) {
  if (count == 0) return;
  FORETOKEN_LAUNCH(*device_, add_parts_kernel, (Grid{(cols + kWarp - 1) / kWarp, kAddWarps * kWarp}), parts, count, cols,
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
