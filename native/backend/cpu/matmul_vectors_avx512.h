#pragma once

// GCC 12 says of its own intrinsics that what they leave undefined on purpose may be used uninitialised.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

#include <immintrin.h>

#include "backend/cpu/matmul_traversal.h"

namespace foretoken::cpu {
namespace {

struct Vectors512 {
  using Floats = __m512;
  typedef uint32_t Words __attribute__((vector_size(64)));
  typedef uint16_t Halves __attribute__((vector_size(32)));
  // 24 of 32 registers are sums; each step loads 3 vectors and 8 broadcasts for 24 multiplications.
  static constexpr int lanes = 16, tile_rows = 8, panel_vectors = 3, group_rows = 16;

  static FORETOKEN_INLINE Words broadcast(uint32_t word) {
    return reinterpret_cast<Words>(_mm512_set1_epi32(static_cast<int>(word)));
  }
  static FORETOKEN_INLINE Words widen(Halves halves) {
    return reinterpret_cast<Words>(_mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(halves)));
  }
  static FORETOKEN_INLINE Floats multiply_add(Floats a, Floats b, Floats sum) { return _mm512_fmadd_ps(a, b, sum); }
};

}  // namespace
}  // namespace foretoken::cpu
