#include "backend/cpu/matmul_traversal.h"

#if defined(__ARM_NEON)
#include <arm_neon.h>
#endif

namespace foretoken::cpu {
namespace {

struct Vectors128 {
  typedef float Floats __attribute__((vector_size(16)));
  typedef uint32_t Words __attribute__((vector_size(16)));
  typedef uint16_t Halves __attribute__((vector_size(8)));
#if defined(__aarch64__)
  static constexpr int lanes = 4, tile_rows = 8, panel_vectors = 2, group_rows = 8;   // 16 of 32 registers are sums
#else
  static constexpr int lanes = 4, tile_rows = 4, panel_vectors = 2, group_rows = 4;   // 8 of 16
#endif

  static FORETOKEN_INLINE Words broadcast(uint32_t word) { return Words{word, word, word, word}; }
  static FORETOKEN_INLINE Words widen(Halves halves) { return __builtin_convertvector(halves, Words); }

  // The vector extension has no fused form; with contraction off the compiler would not make one of it.
  static FORETOKEN_INLINE Floats multiply_add(Floats a, Floats b, Floats sum) {
#if defined(__ARM_NEON)
    return vfmaq_f32(sum, a, b);
#else
    return sum + a * b;
#endif
  }
};

}  // namespace

const Matmul kMatmulPortable = {Isa::Portable, kernels_of<Float32<Vectors128>>(),
                                kernels_of<WidenedBFloat16<Vectors128>>()};

}  // namespace foretoken::cpu
