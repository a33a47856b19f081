#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/elementwise.h"

namespace foretoken::cuda {

namespace {

template <typename From, typename To>
FORETOKEN_KERNEL void convert_kernel(Matrix<const From> from, Matrix<To> to, Chunks chunks) {
  for_chunks(chunks, [&](std::int64_t row, std::int64_t col, std::int64_t count) {
    const From* x = from.row(row) + col;
    To* y = to.row(row) + col;
    constexpr bool wide = sizeof(From) + sizeof(To) > 8;
    constexpr bool half = std::is_same_v<From, Float16> || std::is_same_v<To, Float16>;
    if constexpr (wide || half) {
      for (int i = 0; i < count; ++i) y[i] = from_double<To>(to_double(x[i]));
    } else {
      float v[kChunk];
      load_chunk(x, count, from.aligned, v);
      store_chunk(y, count, to.aligned, v);
    }
  });
}

template <typename Body>
void with_any_type(DType dtype, const Body& body) {
  switch (dtype) {
    case DType::Float64: return body(double());
    case DType::Float32: return body(float());
    case DType::BFloat16: return body(BFloat16());
    case DType::Float16: return body(Float16());
  }
}

}  // namespace

void CudaBackend::convert(View from, View to) {
  const Chunks chunks = Chunks::of(from.rows, from.cols, from.contiguous() && to.contiguous());
  with_any_type(from.dtype, [&](auto f) {
    with_any_type(to.dtype, [&](auto t) {
      using From = decltype(f);
      using To = decltype(t);
      FORETOKEN_LAUNCH(*device_, (convert_kernel<From, To>), chunks.grid(), matrix<const From>(from), matrix<To>(to), chunks);
    });
  });
}

}  // namespace foretoken::cuda
