#include "backend/cpu/matmul_vectors_avx512.h"

namespace foretoken::cpu {
namespace {

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

}  // namespace

const Matmul kMatmulAvx512Bf16 = {Isa::Avx512Bf16, kernels_of<Float32<Vectors512>>(), kernels_of<PairedBFloat16>()};

}  // namespace foretoken::cpu
