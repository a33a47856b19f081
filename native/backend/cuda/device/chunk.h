#pragma once

#include "backend/cuda/device/number.h"

// Rows are read and written in chunks of eight elements. A chunk goes in 128-bit words where the matrix is aligned and
// the chunk whole, else element by element; which of the two it is never shows in a result.
namespace foretoken::cuda {

inline constexpr int kChunk = 8;

FORETOKEN_EITHER std::int64_t chunks_in(std::int64_t cols) { return (cols + kChunk - 1) / kChunk; }

/// A matrix as kernels see it; made by `matrix<T>(view)` in launch.h.
template <typename T>
struct Matrix {
  T* data;              // (rows, cols)
  std::int64_t stride;  // elements from one row to the next
  bool aligned;         // every row begins on 16 bytes

  FORETOKEN_DEVICE T* row(std::int64_t n) const { return data + n * stride; }
};

struct alignas(16) Words {
  std::uint32_t x[4];
}
#ifndef __CUDACC__
__attribute__((may_alias))
#endif
;

FORETOKEN_DEVICE void load_words(const float* p, float (&v)[kChunk]) {
  const Words* words = reinterpret_cast<const Words*>(p);
  const Words a = words[0], b = words[1];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    v[i] = float_of_bits(a.x[i]);
    v[4 + i] = float_of_bits(b.x[i]);
  }
}
FORETOKEN_DEVICE void load_words(const BFloat16* p, float (&v)[kChunk]) {
  const Words a = *reinterpret_cast<const Words*>(p);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    v[2 * i] = float_of_bits(a.x[i] << 16);
    v[2 * i + 1] = float_of_bits(a.x[i] & 0xffff0000u);
  }
}
FORETOKEN_DEVICE void store_words(float* p, const float (&v)[kChunk]) {
  Words a, b;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    a.x[i] = bits_of_float(v[i]);
    b.x[i] = bits_of_float(v[4 + i]);
  }
  Words* words = reinterpret_cast<Words*>(p);
  words[0] = a;
  words[1] = b;
}
FORETOKEN_DEVICE void store_words(BFloat16* p, const float (&v)[kChunk]) {
  Words a;
#pragma unroll
  for (int i = 0; i < 4; ++i)
    a.x[i] = narrow<BFloat16>(v[2 * i]).bits | static_cast<std::uint32_t>(narrow<BFloat16>(v[2 * i + 1]).bits) << 16;
  *reinterpret_cast<Words*>(p) = a;
}

/// v = x[0 … kChunk), zeros beyond the `count` elements that exist.
template <typename T>
FORETOKEN_DEVICE void load_chunk(const T* x, std::int64_t count, bool aligned, float (&v)[kChunk]) {
  if (aligned && count >= kChunk) return load_words(x, v);
#pragma unroll
  for (int i = 0; i < kChunk; ++i) v[i] = i < count ? widen(x[i]) : 0.0f;
}

/// x[0 … kChunk) = v, as far as there are `count` elements.
template <typename T>
FORETOKEN_DEVICE void store_chunk(T* x, std::int64_t count, bool aligned, const float (&v)[kChunk]) {
  if (aligned && count >= kChunk) return store_words(x, v);
#pragma unroll
  for (int i = 0; i < kChunk; ++i)
    if (i < count) x[i] = narrow<T>(v[i]);
}

}  // namespace foretoken::cuda
