#pragma once

#include "backend/cpu/kernels/kernels.h"
#include "backend/cpu/kernels/vec.h"

namespace foretoken::cpu {
namespace {

struct Words {
  WordPart p[kParts];
};

/// The halves of the 64-bit products of x and a constant.
FORETOKEN_INLINE void multiply_words(std::uint32_t constant, WordPart x, WordPart& high, WordPart& low) {
#if defined(__AVX512F__)
  const __m512i factor = _mm512_set1_epi32((int)constant), value = (__m512i)x;
  const __m512i even = _mm512_mul_epu32(value, factor);
  const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(value, 32), factor);
  high = (WordPart)_mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64(even, 32), odd);
  low = (WordPart)_mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64(odd, 32));
#elif defined(__AVX2__)
  const __m256i factor = _mm256_set1_epi32((int)constant), value = (__m256i)x;
  const __m256i even = _mm256_mul_epu32(value, factor);
  const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(value, 32), factor);
  high = (WordPart)_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
  low = (WordPart)_mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
#else
  for (int l = 0; l < kPart; ++l) {
    const std::uint64_t product = (std::uint64_t)constant * x[l];
    high[l] = (std::uint32_t)(product >> 32);
    low[l] = (std::uint32_t)product;
  }
#endif
}

/// The first three words of Philox4x32-10 for sixteen elements from `first` on; see core/philox.h and
/// backend/stochastic_rounding.h, whose numbers these are.
FORETOKEN_INLINE void rounding_words(std::uint64_t key, std::uint32_t stream, std::uint64_t first, Words words[3]) {
  constexpr std::uint32_t stochastic_rounding = 3;
  const VecInt lanes = lane_numbers(0);
#pragma GCC unroll 4
  for (int i = 0; i < kParts; ++i) {
    WordPart c0 = (WordPart)lanes.p[i] + (std::uint32_t)first;
    const WordPart carry = (WordPart)(c0 < (std::uint32_t)first) & 1u;
    WordPart c1 = carry + (std::uint32_t)(first >> 32);
    WordPart c2 = WordPart{} + stream, c3 = WordPart{} + stochastic_rounding;
    std::uint32_t key0 = (std::uint32_t)key, key1 = (std::uint32_t)(key >> 32);
    for (int round = 0; round < 10; ++round) {
      WordPart high0, low0, high1, low1;
      multiply_words(0xD2511F53u, c0, high0, low0);
      multiply_words(0xCD9E8D57u, c2, high1, low1);
      c0 = high1 ^ c1 ^ key0;
      c1 = low1;
      c2 = high0 ^ c3 ^ key1;
      c3 = low0;
      key0 += 0x9E3779B9u;
      key1 += 0xBB67AE85u;
    }
    words[0].p[i] = c0;
    words[1].p[i] = c1;
    words[2].p[i] = c2;
  }
}

FORETOKEN_INLINE void store_rounded(float* x, Vec v, const Words&, Full) { store(x, v); }
FORETOKEN_INLINE void store_rounded(float* x, Vec v, const Words&, Part part) { store(x, v, part); }

/// One of the two neighbours of each value, the nearer the likelier; what is not finite as ever.
template <typename Lanes>
FORETOKEN_INLINE void store_rounded(bf16* x, Vec v, const Words& words, Lanes lanes) {
  Vec chosen;
#pragma GCC unroll 4
  for (int i = 0; i < kParts; ++i) {
    const WordPart u = (WordPart)v.p[i];
    const WordPart rounded = (u + (words.p[i] & 0xffffu)) & 0xffff0000u;
    chosen.p[i] = (FloatPart)((u & 0x7f800000u) == 0x7f800000u ? u : rounded);
  }
  store(x, chosen, lanes);  // exact for what was rounded already
}

// g = gradient · gradient_scale, m = β₁ m + (1 − β₁) g, v = β₂ v + (1 − β₂) g²,
// master -= lr · (m / (1 − β₁ᵗ) / (sqrt(v / (1 − β₂ᵗ)) + ε) + weight_decay · master)
template <typename Master, typename Moment>
void adamw(const AdamWRange& job) {
  constexpr bool by_chance = sizeof(Master) == 2 || sizeof(Moment) == 2;
  for_vectors(job.count, [&](std::int64_t i, auto lanes) {
    Master* master = (Master*)job.master + i;
    Moment* m = (Moment*)job.m + i;
    Moment* v = (Moment*)job.v + i;
    const Vec g = load(job.gradient + i, lanes) * broadcast(job.gradient_scale), old = load(master, lanes);
    const Vec first = fma(broadcast(job.beta1), load(m, lanes), g * broadcast(job.rest1));
    const Vec second = fma(broadcast(job.beta2), load(v, lanes), g * g * broadcast(job.rest2));
    const Vec root = square_root(second * broadcast(job.reciprocal_correction2));
    const Vec update = first * broadcast(job.reciprocal_correction1) / (root + broadcast(job.epsilon));
    const Vec next = fma(broadcast(-job.learning_rate), fma(broadcast(job.weight_decay), old, update), old);
    Words words[3] = {};
    if (by_chance) rounding_words(job.rounding_key, job.rounding_stream, (std::uint64_t)(job.first_element + i), words);
    store_rounded(master, next, words[0], lanes);
    store_rounded(m, first, words[1], lanes);
    store_rounded(v, second, words[2], lanes);
  });
}

}  // namespace
}  // namespace foretoken::cpu
