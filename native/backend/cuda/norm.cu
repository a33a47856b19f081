#include "backend/cuda/column_sums.h"
#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/device/reduce.h"

namespace foretoken::cuda {

namespace {

/// Chunks of a row that one thread holds in registers, every `stride`-th from its own; zeros beyond the row's end.
template <int held>
struct HeldRow {
  float v[held][kChunk];

  template <typename X>
  FORETOKEN_DEVICE void load(const X* row, std::int64_t cols, bool aligned, int first, int stride) {
#pragma unroll
    for (int j = 0; j < held; ++j) {
      const std::int64_t c = (first + j * std::int64_t{stride}) * kChunk;
      if (c < cols) {
        load_chunk(row + c, cols - c, aligned, v[j]);
      } else {
#pragma unroll
        for (int i = 0; i < kChunk; ++i) v[j][i] = 0;
      }
    }
  }
  template <typename X>
  FORETOKEN_DEVICE void store(X* row, std::int64_t cols, bool aligned, int first, int stride) const {
#pragma unroll
    for (int j = 0; j < held; ++j) {
      const std::int64_t c = (first + j * std::int64_t{stride}) * kChunk;
      if (c < cols) store_chunk(row + c, cols - c, aligned, v[j]);
    }
  }
};

// How many threads share a row, and how many chunks each holds: a function of C only, and so is the order of every sum,
// a thread's chunks in order and then the warp's or the block's tree. Rows of up to 2048 columns take a warp each.
constexpr std::int64_t kWarpCols = 2048, kMostCols = 16384;
constexpr int kWarpRows = 4;  // rows of a block, then

// y = x · rstd · w, rstd = 1 / sqrt(mean(x²) + eps). Reads 4 bytes an element, once, and writes T.
template <typename T, int held, bool by_warp>
FORETOKEN_KERNEL void norm_forward_kernel(Matrix<const float> x, Matrix<const float> weight, std::int64_t rows, std::int64_t cols,
                                          float epsilon, Matrix<T> y, float* rstd) {
  const std::int64_t n = by_warp ? block_index() * kWarpRows + warp_index() : block_index();
  if (n >= rows) return;  // a whole warp or block
  const int first = by_warp ? lane_index() : thread_index(), stride = by_warp ? kWarp : block_threads();
  HeldRow<held> row;
  row.load(x.row(n), cols, x.aligned, first, stride);
  float squares = 0;
#pragma unroll
  for (int j = 0; j < held; ++j)
#pragma unroll
    for (int i = 0; i < kChunk; ++i) squares = fmaf(row.v[j][i], row.v[j][i], squares);
  squares = by_warp ? sum_warp(squares) : sum_block(squares);
  const float r = 1.0f / sqrtf(squares / static_cast<float>(cols) + epsilon);
  if (rstd && first == 0) rstd[n] = r;
  HeldRow<held> w;
  w.load(weight.data, cols, weight.aligned, first, stride);
#pragma unroll
  for (int j = 0; j < held; ++j)
#pragma unroll
    for (int i = 0; i < kChunk; ++i) row.v[j][i] = row.v[j][i] * r * w.v[j][i];
  row.store(y.row(n), cols, y.aligned, first, stride);
}

// With x̂ = x · rstd and g = dy · w: dx += rstd · (g − x̂ · mean(g · x̂)); parts[piece] = Σ dy · x̂ over the piece's rows in
// order. A block per piece of kSumRows rows; a thread has the same columns in every row, and holds their weights and sums.
// Moves 16 bytes an element, and where the next products want dx_t, dx rounded, writes that from the registers.
template <typename T, int held>
FORETOKEN_KERNEL void norm_backward_kernel(Matrix<const float> x, Matrix<const float> weight, const float* rstd,
                                           Matrix<const float> dy, std::int64_t rows, std::int64_t cols, Matrix<float> dx,
                                           Matrix<T> dx_t, float* parts) {
  const int first = thread_index(), stride = block_threads();
  HeldRow<held> w, dweight;
  w.load(weight.data, cols, weight.aligned, first, stride);
#pragma unroll
  for (int j = 0; j < held; ++j)
#pragma unroll
    for (int i = 0; i < kChunk; ++i) dweight.v[j][i] = 0;
  const std::int64_t begin = block_index() * kSumRows, end = min_of<std::int64_t>(rows, begin + kSumRows);
  for (std::int64_t n = begin; n < end; ++n) {
    const float r = rstd[n];
    HeldRow<held> normed, g, total;
    normed.load(x.row(n), cols, x.aligned, first, stride);
    g.load(dy.row(n), cols, dy.aligned, first, stride);
    total.load(dx.row(n), cols, dx.aligned, first, stride);
    float sum = 0;
#pragma unroll
    for (int j = 0; j < held; ++j)
#pragma unroll
      for (int i = 0; i < kChunk; ++i) {
        normed.v[j][i] *= r;
        dweight.v[j][i] = fmaf(g.v[j][i], normed.v[j][i], dweight.v[j][i]);
        g.v[j][i] *= w.v[j][i];
        sum = fmaf(g.v[j][i], normed.v[j][i], sum);
      }
    const float mean = sum_block(sum) / static_cast<float>(cols);
#pragma unroll
    for (int j = 0; j < held; ++j)
#pragma unroll
      for (int i = 0; i < kChunk; ++i) total.v[j][i] = fmaf(r, fmaf(-normed.v[j][i], mean, g.v[j][i]), total.v[j][i]);
    total.store(dx.row(n), cols, dx.aligned, first, stride);
    if (dx_t.data) total.store(dx_t.row(n), cols, dx_t.aligned, first, stride);
  }
  dweight.store(parts + block_index() * cols, cols, cols % 4 == 0, first, stride);
}

/// Calls body with the number of chunks that each of `sharers` threads must hold, as a constant: 1, 2, 4 or 8.
template <typename Body>
void with_held(std::int64_t cols, int sharers, const Body& body) {
  const std::int64_t held = (chunks_in(cols) + sharers - 1) / sharers;
  if (held <= 1) body(std::integral_constant<int, 1>());
  else if (held <= 2) body(std::integral_constant<int, 2>());
  else if (held <= 4) body(std::integral_constant<int, 4>());
  else body(std::integral_constant<int, 8>());
}

int block_threads_for(std::int64_t cols) {
  if (cols > kMostCols) fail(ErrorCode::UnsupportedConfig, "the GPU normalises rows of up to ", kMostCols, " columns, not of ", cols);
  return threads_for(chunks_in(cols));
}

}  // namespace

void CudaBackend::norm_forward(View x, View weight, double epsilon, View y, View rstd) {
  const int threads = block_threads_for(x.cols);
  with_type(y.dtype, [&](auto t) {
    using T = decltype(t);
    const auto launch_for = [&](auto held, auto by_warp) {
      const Grid grid = by_warp ? Grid{(x.rows + kWarpRows - 1) / kWarpRows, kWarpRows * kWarp} : Grid{x.rows, threads};
      FORETOKEN_LAUNCH(*device_, (norm_forward_kernel<T, held(), by_warp()>), grid, matrix<const float>(x), matrix<const float>(weight),
                       x.rows, x.cols, static_cast<float>(epsilon), matrix<T>(y), rstd.as<float>());
    };
    if (x.cols <= kWarpCols) with_held(x.cols, kWarp, [&](auto held) { launch_for(held, std::true_type()); });
    else with_held(x.cols, threads, [&](auto held) { launch_for(held, std::false_type()); });
  });
}

void CudaBackend::norm_backward(View x, View weight, View rstd, View dy, View dx, View dx_t, View dweight) {
  const std::int64_t pieces = pieces_of(x.rows);
  const int threads = block_threads_for(x.cols);
  float* parts = static_cast<float*>(scratch(static_cast<std::size_t>(pieces * x.cols) * sizeof(float)));
  with_type(dtype_, [&](auto t) {
    using T = decltype(t);
    with_held(x.cols, threads, [&](auto held) {
      FORETOKEN_LAUNCH(*device_, (norm_backward_kernel<T, held()>), (Grid{pieces, threads}), matrix<const float>(x),
                       matrix<const float>(weight), rstd.as<float>(), matrix<const float>(dy), x.rows, x.cols, matrix<float>(dx),
                       matrix<T>(dx_t), parts);
    });
  });
  add_parts(parts, pieces, x.cols, dweight);
}

}  // namespace foretoken::cuda
