#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/elementwise.h"

namespace foretoken::cuda {

namespace {

// average += (1 − tau) · (x − average)
template <typename T>
FORETOKEN_KERNEL void average_kernel(Matrix<T> average, Matrix<const T> x, double share, Chunks chunks) {
  for_chunks(chunks, [&](std::int64_t row, std::int64_t c, std::int64_t count) {
    T* target = average.row(row) + c;
    const T* source = x.row(row) + c;
    if constexpr (std::is_same_v<T, double>) {
      for (int i = 0; i < count; ++i) target[i] = fma(share, source[i] - target[i], target[i]);
    } else {
      float a[kChunk], b[kChunk];
      load_chunk(target, count, average.aligned, a);
      load_chunk(source, count, x.aligned, b);
#pragma unroll
      for (int i = 0; i < kChunk; ++i) a[i] = fmaf(static_cast<float>(share), b[i] - a[i], a[i]);
      store_chunk(target, count, average.aligned, a);
    }
  });
}

}  // namespace

void CudaBackend::average(View average, View x, double tau) {
  if (tau == 0) return convert(x, average);
  invariant(average.dtype == x.dtype, "an average has the dtype of what it averages");
  const Chunks chunks = Chunks::of(x.rows, x.cols, average.contiguous() && x.contiguous());
  const auto launch_for = [&](auto t) {
    using T = decltype(t);
    FORETOKEN_LAUNCH(*device_, (average_kernel<T>), chunks.grid(), matrix<T>(average), matrix<const T>(x), 1 - tau, chunks);
  };
  if (x.dtype == DType::Float64) launch_for(double());
  else with_type(x.dtype, launch_for);
}

}  // namespace foretoken::cuda
