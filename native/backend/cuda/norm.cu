#include "backend/cuda/column_sums.h"
#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/device/reduce.h"

namespace foretoken::cuda {

namespace {

// y = x · rstd · w, rstd = 1 / sqrt(mean(x²) + eps); a block per row. Sum over C: a thread's chunks in order, then
// reduce_block: a function of C only. Reads 8 bytes an element (the second time from cache), writes T.
template <typename T>
FORETOKEN_KERNEL void norm_forward_kernel(Matrix<const float> x, Matrix<const float> weight, std::int64_t cols, float epsilon,
                                          Matrix<T> y, float* rstd) {
  const std::int64_t n = block_index();
  const float* row = x.row(n);
  float squares = 0;
  for (std::int64_t chunk = thread_index(); chunk < chunks_in(cols); chunk += block_threads()) {
    float v[kChunk];
    load_chunk(row + chunk * kChunk, cols - chunk * kChunk, x.aligned, v);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) squares = fmaf(v[i], v[i], squares);
  }
  const float r = 1.0f / sqrtf(sum_block(squares) / static_cast<float>(cols) + epsilon);
  if (rstd && thread_index() == 0) rstd[n] = r;
  for (std::int64_t chunk = thread_index(); chunk < chunks_in(cols); chunk += block_threads()) {
    const std::int64_t c = chunk * kChunk, count = cols - c;
    float v[kChunk], w[kChunk];
    load_chunk(row + c, count, x.aligned, v);
    load_chunk(weight.data + c, count, weight.aligned, w);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) v[i] = v[i] * r * w[i];
    store_chunk(y.row(n) + c, count, y.aligned, v);
  }
}

// With x̂ = x · rstd and g = dy · w: dx += rstd · (g − x̂ · mean(g · x̂)); parts[piece] = Σ dy · x̂ over the piece's rows
// in order. A block per piece of kSumRows rows; a thread owns the same columns in every row.
FORETOKEN_KERNEL void norm_backward_kernel(Matrix<const float> x, Matrix<const float> weight, const float* rstd,
                                           Matrix<const float> dy, std::int64_t rows, std::int64_t cols, Matrix<float> dx,
                                           float* parts) {
  float* dweight = shared_memory<float>();  // (chunks · kChunk)
  for (std::int64_t chunk = thread_index(); chunk < chunks_in(cols); chunk += block_threads())
#pragma unroll
    for (int i = 0; i < kChunk; ++i) dweight[chunk * kChunk + i] = 0;
  const std::int64_t begin = block_index() * kSumRows, end = min_of<std::int64_t>(rows, begin + kSumRows);
  for (std::int64_t n = begin; n < end; ++n) {
    const float r = rstd[n];
    float sum = 0;
    for (std::int64_t chunk = thread_index(); chunk < chunks_in(cols); chunk += block_threads()) {
      const std::int64_t c = chunk * kChunk, count = cols - c;
      float v[kChunk], w[kChunk], d[kChunk];
      load_chunk(x.row(n) + c, count, x.aligned, v);
      load_chunk(weight.data + c, count, weight.aligned, w);
      load_chunk(dy.row(n) + c, count, dy.aligned, d);
#pragma unroll
      for (int i = 0; i < kChunk; ++i) {
        const float normed = v[i] * r;
        sum = fmaf(d[i] * w[i], normed, sum);
        dweight[c + i] = fmaf(d[i], normed, dweight[c + i]);
      }
    }
    const float mean = sum_block(sum) / static_cast<float>(cols);
    for (std::int64_t chunk = thread_index(); chunk < chunks_in(cols); chunk += block_threads()) {
      const std::int64_t c = chunk * kChunk, count = cols - c;
      float v[kChunk], w[kChunk], d[kChunk], total[kChunk];
      load_chunk(x.row(n) + c, count, x.aligned, v);
      load_chunk(weight.data + c, count, weight.aligned, w);
      load_chunk(dy.row(n) + c, count, dy.aligned, d);
      load_chunk(dx.row(n) + c, count, dx.aligned, total);
#pragma unroll
      for (int i = 0; i < kChunk; ++i) total[i] = fmaf(r, fmaf(-v[i] * r, mean, d[i] * w[i]), total[i]);
      store_chunk(dx.row(n) + c, count, dx.aligned, total);
    }
  }
  for (std::int64_t chunk = thread_index(); chunk < chunks_in(cols); chunk += block_threads())
    for (std::int64_t c = chunk * kChunk; c < min_of<std::int64_t>(cols, (chunk + 1) * kChunk); ++c)
      parts[block_index() * cols + c] = dweight[c];
}

}  // namespace

void CudaBackend::norm_forward(View x, View weight, double epsilon, View y, View rstd) {
  with_type(y.dtype, [&](auto t) {
    using T = decltype(t);
    FORETOKEN_LAUNCH(*device_, (norm_forward_kernel<T>), (Grid{x.rows, threads_for(chunks_in(x.cols))}), matrix<const float>(x),
                     matrix<const float>(weight), x.cols, static_cast<float>(epsilon), matrix<T>(y), rstd.as<float>());
  });
}

void CudaBackend::norm_backward(View x, View weight, View rstd, View dy, View dx, View dweight) {
  const std::int64_t pieces = pieces_of(x.rows), chunks = chunks_in(x.cols);
  float* parts = static_cast<float*>(scratch(static_cast<std::size_t>(pieces * x.cols) * sizeof(float)));
  const Grid grid{pieces, threads_for(chunks), static_cast<std::size_t>(chunks * kChunk) * sizeof(float)};
  FORETOKEN_LAUNCH(*device_, norm_backward_kernel, grid, matrix<const float>(x), matrix<const float>(weight), rstd.as<float>(),
                   matrix<const float>(dy), x.rows, x.cols, matrix<float>(dx), parts);
  add_parts(parts, pieces, x.cols, dweight);
}

}  // namespace foretoken::cuda
