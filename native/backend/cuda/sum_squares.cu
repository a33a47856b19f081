#include "backend/clip_scale.h"
#include "backend/cuda/column_sums.h"
#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/device/launch.h"
#include "backend/cuda/device/reduce.h"

namespace foretoken::cuda {

namespace {

constexpr std::int64_t kPiece = kSquaresPiece;
constexpr int kThreads = 256;

// sums[piece] = Σ x² in float64, where the squares of float32 are exact: a thread's elements in order, then reduce_block.
template <typename T>
FORETOKEN_KERNEL void sum_squares_kernel(Matrix<const T> x, std::int64_t cols, std::int64_t pieces_per_row, double* sums) {
  const std::int64_t row = block_index() / pieces_per_row, piece = block_index() - row * pieces_per_row;
  const std::int64_t begin = piece * kPiece, end = min_of<std::int64_t>(cols, begin + kPiece);
  double sum = 0;
  for (std::int64_t c = begin + thread_index() * kChunk; c < end; c += kThreads * kChunk) {
    const T* source = x.row(row) + c;
    if constexpr (std::is_same_v<T, double> || std::is_same_v<T, Float16>) {
      for (std::int64_t i = 0; i < min_of<std::int64_t>(kChunk, end - c); ++i) sum = fma(to_double(source[i]), to_double(source[i]), sum);
    } else {
      float v[kChunk];
      load_chunk(source, end - c, x.aligned, v);
#pragma unroll
      for (int i = 0; i < kChunk; ++i) sum = fma(static_cast<double>(v[i]), static_cast<double>(v[i]), sum);
    }
  }
  sum = sum_block(sum);
  if (thread_index() == 0) sums[block_index()] = sum;
}

// total = Σ sums: a thread's in order, then reduce_block.
FORETOKEN_KERNEL void add_sums_kernel(const double* sums, std::int64_t count, double* total) {
  double sum = 0;
  for (std::int64_t i = thread_index(); i < count; i += block_threads()) sum += sums[i];
  sum = sum_block(sum);
  if (thread_index() == 0) *total = sum;
}

FORETOKEN_KERNEL void clip_norm_kernel(const double* squares, std::int64_t count, double max_norm, double* scale) {
  if (thread_index() != 0) return;
  double sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum += squares[i];
  *scale = clip_scale(sqrt(sum), max_norm);
}

}  // namespace

void CudaBackend::clip_norm(const double* squares, std::int64_t count, double max_norm, double* scale) {
  FORETOKEN_LAUNCH(*device_, clip_norm_kernel, (Grid{1, kWarp}), squares, count, max_norm, scale);
}

void CudaBackend::sum_squares(View x, double* sum) {
  if (x.elements() == 0) return device_->clear(sum, 1, sizeof *sum, 0);
  const std::int64_t rows = x.contiguous() ? 1 : x.rows, cols = x.contiguous() ? x.elements() : x.cols;
  const std::int64_t per_row = (cols + kPiece - 1) / kPiece, pieces = rows * per_row;
  double* sums = static_cast<double*>(scratch(static_cast<std::size_t>(pieces) * sizeof(double)));
  const View flat(x.data, x.dtype, rows, cols, x.stride);
  const auto launch_for = [&](auto t) {
    using T = decltype(t);
    FORETOKEN_LAUNCH(*device_, (sum_squares_kernel<T>), (Grid{pieces, kThreads}), matrix<const T>(flat), cols, per_row, sums);
  };
  if (x.dtype == DType::Float64) launch_for(double());
  else with_type(x.dtype, launch_for);
  FORETOKEN_LAUNCH(*device_, add_sums_kernel, (Grid{1, kThreads}), sums, pieces, sum);
}

}  // namespace foretoken::cuda
