#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/elementwise.h"

namespace foretoken::cuda {

namespace {

/// σ(g); exp(−g) may be infinite, which gives 0.
FORETOKEN_DEVICE float sigmoid(float g) { return 1.0f / (1.0f + expf(-g)); }

// h = silu(gate) · up, silu(g) = g · σ(g). Moves 3 N·F elements.
template <typename T>
FORETOKEN_KERNEL void swiglu_forward_kernel(Matrix<const T> gate, Matrix<const T> up, Matrix<T> h, Chunks chunks) {
  for_chunks(chunks, [&](std::int64_t n, std::int64_t f, std::int64_t count) {
    float g[kChunk], u[kChunk];
    load_chunk(gate.row(n) + f, count, gate.aligned, g);
    load_chunk(up.row(n) + f, count, up.aligned, u);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) g[i] = g[i] * sigmoid(g[i]) * u[i];
    store_chunk(h.row(n) + f, count, h.aligned, g);
  });
}

// dgate = dh · up · σ(g) · (1 + g · (1 − σ(g))), dup = dh · silu(g). Moves 5 N·F elements.
template <typename T>
FORETOKEN_KERNEL void swiglu_backward_kernel(Matrix<const T> dh, Matrix<const T> gate, Matrix<const T> up,
                                             Matrix<T> dgate, Matrix<T> dup, Chunks chunks) {
  for_chunks(chunks, [&](std::int64_t n, std::int64_t f, std::int64_t count) {
    float d[kChunk], g[kChunk], u[kChunk];
    load_chunk(dh.row(n) + f, count, dh.aligned, d);
    load_chunk(gate.row(n) + f, count, gate.aligned, g);
    load_chunk(up.row(n) + f, count, up.aligned, u);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
      const float s = sigmoid(g[i]);
      u[i] = d[i] * u[i] * s * fmaf(g[i], 1.0f - s, 1.0f);
      d[i] = d[i] * g[i] * s;
    }
    store_chunk(dgate.row(n) + f, count, dgate.aligned, u);
    store_chunk(dup.row(n) + f, count, dup.aligned, d);
  });
}

}  // namespace

void CudaBackend::swiglu_forward(View gate_up, View h) {
  const Chunks chunks = Chunks::of(h.rows, h.cols, false);
  with_type(dtype_, [&](auto t) {
    using T = decltype(t);
    FORETOKEN_LAUNCH(*device_, (swiglu_forward_kernel<T>), chunks.grid(), matrix<const T>(gate_up.slice_cols(0, h.cols)),
                     matrix<const T>(gate_up.slice_cols(h.cols, h.cols)), matrix<T>(h), chunks);
  });
}

void CudaBackend::swiglu_backward(View dh, View gate_up, View dgate_up) {
  const std::int64_t F = dh.cols;
  const Chunks chunks = Chunks::of(dh.rows, F, false);
  with_type(dtype_, [&](auto t) {
    using T = decltype(t);
    FORETOKEN_LAUNCH(*device_, (swiglu_backward_kernel<T>), chunks.grid(), matrix<const T>(dh),
                     matrix<const T>(gate_up.slice_cols(0, F)), matrix<const T>(gate_up.slice_cols(F, F)),
                     matrix<T>(dgate_up.slice_cols(0, F)), matrix<T>(dgate_up.slice_cols(F, F)), chunks);
  });
}

}  // namespace foretoken::cuda
