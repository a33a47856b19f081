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

#if defined(__AVX512BF16__)
/// VDPBF16PS: sum + a₁b₁ + a₀b₀ of each pair, rounded as the instruction defines (denormals count as zero).
struct PairedBFloat16 : Vectors512 {
  static constexpr bool bfloat16 = true;
  static constexpr int phases = 1;
  template <int phase>
  static FORETOKEN_INLINE Floats multiply_add(Words a, Words b, Floats sum) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }
  static FORETOKEN_INLINE Halves narrow(Floats value) { return reinterpret_cast<Halves>(_mm512_cvtneps_pbh(value)); }
};
#endif

}  // namespace
}  // namespace foretoken::cpu
