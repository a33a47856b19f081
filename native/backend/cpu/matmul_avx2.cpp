#include <immintrin.h>

#include "backend/cpu/matmul_traversal.h"

namespace foretoken::cpu {
namespace {

struct Vectors256 {
  using Floats = __m256;
  typedef uint32_t Words __attribute__((vector_size(32)));
  typedef uint16_t Halves __attribute__((vector_size(16)));
  static constexpr int lanes = 8, tile_rows = 6, panel_vectors = 2, group_rows = 24;   // 12 of 16 registers are sums

  static FORETOKEN_INLINE Words broadcast(uint32_t word) {
    return reinterpret_cast<Words>(_mm256_set1_epi32(static_cast<int>(word)));
  }
  static FORETOKEN_INLINE Words widen(Halves halves) {
    return reinterpret_cast<Words>(_mm256_cvtepu16_epi32(reinterpret_cast<__m128i>(halves)));
  }
  static FORETOKEN_INLINE Floats multiply_add(Floats a, Floats b, Floats sum) { return _mm256_fmadd_ps(a, b, sum); }
};

/// Widening takes registers too: with 12 sums the compiler spills some of them.
struct NarrowTile256 : Vectors256 {
  static constexpr int tile_rows = 4, group_rows = 8;
};

}  // namespace

const Matmul kMatmulAvx2 = {Isa::Avx2, kernels_of<Float32<Vectors256>>(), kernels_of<WidenedBFloat16<NarrowTile256>>()};

}  // namespace foretoken::cpu
