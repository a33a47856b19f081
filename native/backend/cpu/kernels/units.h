#pragma once

#include "backend/cpu/kernels/vec.h"

// What one step of a product takes from each operand: a *unit*, which is a float32, or a pair of bfloat16 that are
// neighbours along the sum (the first in the low half). Either is a word of four bytes.

namespace foretoken::cpu {
namespace {

typedef std::uint32_t Word __attribute__((may_alias));

/// Numbers of T in a unit.
template <typename T>
constexpr int kUnit = 4 / (int)sizeof(T);

struct Units {
  WordPart p[kParts];
};

typedef WordPart WordMemory __attribute__((aligned(2), may_alias));

FORETOKEN_INLINE Units load_units(const void* x, Full = {}) {
  Units r;
#define X(i) r.p[i] = *(const WordMemory*)((const char*)x + i * kPart * 4);
  FORETOKEN_EACH_PART(X)
#undef X
  return r;
}

FORETOKEN_INLINE Units load_units(const void* x, Part part) {
#if defined(__AVX512F__)
  return {{(WordPart)_mm512_maskz_loadu_epi32(mask_of(part), x)}};
#else
  std::uint32_t copy[kLanes] = {};
  __builtin_memcpy(copy, x, 4 * (std::size_t)part.count);
  return load_units(copy);
#endif
}

FORETOKEN_INLINE void store_units(void* x, Units v, Full = {}) {
#define X(i) *(WordMemory*)((char*)x + i * kPart * 4) = v.p[i];
  FORETOKEN_EACH_PART(X)
#undef X
}

FORETOKEN_INLINE Units broadcast_unit(Word x) {
  Units r;
#define X(i) r.p[i] = x - WordPart{};
  FORETOKEN_EACH_PART(X)
#undef X
  return r;
}

/// The units with their second number taken as zero, whatever it is.
FORETOKEN_INLINE Units first_halves(Units a) {
  Units r;
#define X(i) r.p[i] = a.p[i] & 0xffffu;
  FORETOKEN_EACH_PART(X)
#undef X
  return r;
}

/// sum + a b; of pairs the products are added one after the other, or as VDPBF16PS defines where there is one.
template <typename T>
FORETOKEN_INLINE Vec multiply_add(Units a, Units b, Vec sum) {
  Vec r;
  if constexpr (kUnit<T> == 1) {
#define X(i) r.p[i] = fma_part((FloatPart)a.p[i], (FloatPart)b.p[i], sum.p[i]);
    FORETOKEN_EACH_PART(X)
#undef X
  } else {
#if defined(__AVX512BF16__)
    r.p[0] = (FloatPart)_mm512_dpbf16_ps((__m512)sum.p[0], (__m512bh)a.p[0], (__m512bh)b.p[0]);
#else
#define X(i)                                                                             \
  r.p[i] = fma_part((FloatPart)(a.p[i] << 16), (FloatPart)(b.p[i] << 16), sum.p[i]);     \
  r.p[i] = fma_part((FloatPart)(a.p[i] & 0xffff0000u), (FloatPart)(b.p[i] & 0xffff0000u), r.p[i]);
    FORETOKEN_EACH_PART(X)
#undef X
#endif
  }
  return r;
}

/// Units of two rows: each pair is the numbers of both at the same place, rounded to nearest.
FORETOKEN_INLINE Units pairs_of(Vec first, Vec second) {
  Units r;
#if defined(__AVX512BF16__)
  const __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)first.p[0]));
  const __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)second.p[0]));
  r.p[0] = (WordPart)_mm512_or_si512(low, _mm512_slli_epi32(high, 16));
#else
#define X(i) r.p[i] = rounded_halves(first.p[i]) | (rounded_halves(second.p[i]) << 16);
  FORETOKEN_EACH_PART(X)
#undef X
#endif
  return r;
}

}  // namespace
}  // namespace foretoken::cpu
