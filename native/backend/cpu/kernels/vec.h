#pragma once

// Sixteen float lanes on whatever registers the file is compiled for: one of AVX-512, two of AVX2, four of SSE or NEON.
// The lanes' meaning and every order of sums are the same on all of them.
//
// The files that include this are compiled for instruction sets that the machine may lack. Everything is in an unnamed
// namespace, and nothing of the standard library with code in it is included, so that the linker can never pick one of
// these functions for the rest of the program.

#include <cstdint>

// GCC 12 says of its own intrinsics that what they leave undefined on purpose may be used uninitialised.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define FORETOKEN_INLINE inline __attribute__((always_inline))

namespace foretoken::cpu {
namespace {

constexpr int kLanes = 16;

/// Storage of one bfloat16.
struct bf16 {
  std::uint16_t bits;
};

#if defined(__AVX512F__)
#define FORETOKEN_EACH_PART(X) X(0)
constexpr int kParts = 1;
#elif defined(__AVX2__)
#define FORETOKEN_EACH_PART(X) X(0) X(1)
constexpr int kParts = 2;
#else
#define FORETOKEN_EACH_PART(X) X(0) X(1) X(2) X(3)
constexpr int kParts = 4;
#endif
constexpr int kPart = kLanes / kParts;  // lanes of one register

typedef float FloatPart __attribute__((vector_size(4 * kPart)));
typedef std::int32_t IntPart __attribute__((vector_size(4 * kPart)));
typedef std::uint32_t WordPart __attribute__((vector_size(4 * kPart)));
typedef std::uint16_t HalfPart __attribute__((vector_size(2 * kPart)));
typedef FloatPart FloatMemory __attribute__((aligned(4), may_alias));
typedef HalfPart HalfMemory __attribute__((aligned(2), may_alias));

struct Vec {
  FloatPart p[kParts];
};

struct VecInt {
  IntPart p[kParts];
};

FORETOKEN_INLINE Vec broadcast(float x) {
  Vec r;
#define X(i) r.p[i] = x - FloatPart{};
  FORETOKEN_EACH_PART(X)
#undef X
  return r;
}

FORETOKEN_INLINE Vec zero() { return broadcast(0.0f); }

#define FORETOKEN_OPERATOR(op)                     \
  FORETOKEN_INLINE Vec operator op(Vec a, Vec b) { \
    Vec r;                                         \
    FORETOKEN_EACH_PART(X)                         \
    return r;                                      \
  }
#define X(i) r.p[i] = a.p[i] + b.p[i];
FORETOKEN_OPERATOR(+)
#undef X
#define X(i) r.p[i] = a.p[i] - b.p[i];
FORETOKEN_OPERATOR(-)
#undef X
#define X(i) r.p[i] = a.p[i] * b.p[i];
FORETOKEN_OPERATOR(*)
#undef X
#define X(i) r.p[i] = a.p[i] / b.p[i];
FORETOKEN_OPERATOR(/)
#undef X
#undef FORETOKEN_OPERATOR

FORETOKEN_INLINE Vec operator-(Vec a) {
  Vec r;
#define X(i) r.p[i] = -a.p[i];
  FORETOKEN_EACH_PART(X)
#undef X
  return r;
}

/// a·b + c with one rounding where the machine can, with two on baseline x86-64.
FORETOKEN_INLINE FloatPart fma_part(FloatPart a, FloatPart b, FloatPart c) {
#if defined(__AVX512F__)
  return (FloatPart)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__)
  return (FloatPart)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
  return (FloatPart)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return a * b + c;
#endif
}

FORETOKEN_INLINE Vec fma(Vec a, Vec b, Vec c) {
  Vec r;
#define X(i) r.p[i] = fma_part(a.p[i], b.p[i], c.p[i]);
  FORETOKEN_EACH_PART(X)
#undef X
  return r;
}

/// The greater of each pair, b where either is NaN.
FORETOKEN_INLINE Vec max(Vec a, Vec b) {
  Vec r;
#if defined(__AVX512F__)
#define X(i) r.p[i] = (FloatPart)_mm512_max_ps((__m512)a.p[i], (__m512)b.p[i]);
#elif defined(__AVX2__)
#define X(i) r.p[i] = (FloatPart)_mm256_max_ps((__m256)a.p[i], (__m256)b.p[i]);
#else
#define X(i) r.p[i] = a.p[i] > b.p[i] ? a.p[i] : b.p[i];
#endif
  FORETOKEN_EACH_PART(X)
#undef X
  return r;
}

/// The smaller of each pair, b where either is NaN.
FORETOKEN_INLINE Vec min(Vec a, Vec b) {
  Vec r;
#if defined(__AVX512F__)
#define X(i) r.p[i] = (FloatPart)_mm512_min_ps((__m512)a.p[i], (__m512)b.p[i]);
#elif defined(__AVX2__)
#define X(i) r.p[i] = (FloatPart)_mm256_min_ps((__m256)a.p[i], (__m256)b.p[i]);
#else
#define X(i) r.p[i] = a.p[i] < b.p[i] ? a.p[i] : b.p[i];
#endif
  FORETOKEN_EACH_PART(X)
#undef X
  return r;
}

FORETOKEN_INLINE Vec square_root(Vec a) {
  Vec r;
#if defined(__AVX512F__)
#define X(i) r.p[i] = (FloatPart)_mm512_sqrt_ps((__m512)a.p[i]);
#elif defined(__AVX2__)
#define X(i) r.p[i] = (FloatPart)_mm256_sqrt_ps((__m256)a.p[i]);
#else
#define X(i) \
  for (int l = 0; l < kPart; ++l) r.p[i][l] = __builtin_sqrtf(a.p[i][l]);
#endif
  FORETOKEN_EACH_PART(X)
#undef X
  return r;
}

// ---- Loads and stores. `Full` and `Part` say how many lanes take part; the others read as zero and stay unwritten.

struct Full {};
struct Part {
  int count;
};

FORETOKEN_INLINE int lanes_in(Full) { return kLanes; }
FORETOKEN_INLINE int lanes_in(Part part) { return part.count; }

FORETOKEN_INLINE Vec load(const float* x, Full = {}) {
  Vec r;
#define X(i) r.p[i] = *(const FloatMemory*)(x + i * kPart);
  FORETOKEN_EACH_PART(X)
#undef X
  return r;
}

// GCC would widen and narrow whole vectors of 16-bit numbers in halves, hence the intrinsics.
FORETOKEN_INLINE Vec load(const bf16* x, Full = {}) {
  Vec r;
#if defined(__AVX512F__)
#define X(i) r.p[i] = (FloatPart)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)x)), 16);
#elif defined(__AVX2__)
#define X(i) \
  r.p[i] = (FloatPart)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)(x + i * kPart))), 16);
#else
#define X(i) \
  r.p[i] = (FloatPart)(__builtin_convertvector(*(const HalfMemory*)(x + i * kPart), WordPart) << 16);
#endif
  FORETOKEN_EACH_PART(X)
#undef X
  return r;
}

FORETOKEN_INLINE void store(float* x, Vec v, Full = {}) {
#define X(i) *(FloatMemory*)(x + i * kPart) = v.p[i];
  FORETOKEN_EACH_PART(X)
#undef X
}

FORETOKEN_INLINE void store_halves(bf16* x, WordPart words) {
#if defined(__AVX512F__)
  _mm256_storeu_si256((__m256i*)x, _mm512_cvtepi32_epi16((__m512i)words));
#elif defined(__AVX2__)
  const __m256i packed = _mm256_packus_epi32((__m256i)words, (__m256i)words);
  _mm_storeu_si128((__m128i*)x, _mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08)));
#else
  *(HalfMemory*)x = __builtin_convertvector(words, HalfPart);
#endif
}

/// The bits of bfloat16, rounded to nearest, ties to even; a NaN stays one.
FORETOKEN_INLINE WordPart rounded_halves(FloatPart v) {
  const WordPart u = (WordPart)v;
  const WordPart nearest = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  return v == v ? nearest : ((u >> 16) | 0x40u);
}

FORETOKEN_INLINE void store_nearest(float* x, Vec v) { store(x, v); }
FORETOKEN_INLINE void store_nearest(bf16* x, Vec v) {
#define X(i) store_halves(x + i * kPart, rounded_halves(v.p[i]));
  FORETOKEN_EACH_PART(X)
#undef X
}

/// The same, but that denormal numbers may become zero: AVX512-BF16 takes them for that, as its products do.
FORETOKEN_INLINE void store(bf16* x, Vec v, Full = {}) {
#if defined(__AVX512BF16__)
  _mm256_storeu_si256((__m256i*)x, (__m256i)_mm512_cvtneps_pbh((__m512)v.p[0]));
#else
  store_nearest(x, v);
#endif
}

template <typename T>
FORETOKEN_INLINE Vec load(const T* x, Part part) {
  T copy[kLanes] = {};
  for (int l = 0; l < part.count; ++l) copy[l] = x[l];
  return load(copy);
}

template <typename T>
FORETOKEN_INLINE void store(T* x, Vec v, Part part) {
  T copy[kLanes];
  store(copy, v);
  for (int l = 0; l < part.count; ++l) x[l] = copy[l];
}

#if defined(__AVX512F__)
FORETOKEN_INLINE __mmask16 mask_of(Part part) { return (__mmask16)((1u << part.count) - 1); }
FORETOKEN_INLINE Vec load(const float* x, Part part) { return {{(FloatPart)_mm512_maskz_loadu_ps(mask_of(part), x)}}; }
FORETOKEN_INLINE void store(float* x, Vec v, Part part) { _mm512_mask_storeu_ps(x, mask_of(part), (__m512)v.p[0]); }
FORETOKEN_INLINE Vec load(const bf16* x, Part part) {
  const __m256i halves = _mm256_maskz_loadu_epi16(mask_of(part), x);
  return {{(FloatPart)_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16)}};
}
#endif

FORETOKEN_INLINE float to_float(float x) { return x; }
FORETOKEN_INLINE float to_float(bf16 x) {
  const std::uint32_t word = (std::uint32_t)x.bits << 16;
  float value;
  __builtin_memcpy(&value, &word, 4);
  return value;
}

/// Asks for the cache lines of `count` elements that will soon be read (or written).
template <bool writes = false, typename T>
FORETOKEN_INLINE void prefetch(const T* x, std::int64_t count) {
  constexpr int line = 64;
  const char* end = (const char*)(x + count);
  for (const char* at = (const char*)x; at < end; at += line) __builtin_prefetch(at, writes ? 1 : 0, 3);
}

/// Calls f(i, lanes) for i = 0, 16, … up to count; `lanes` is Full but for the last, incomplete vector.
template <typename Function>
FORETOKEN_INLINE void for_vectors(std::int64_t count, const Function& f) {
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) f(i, Full{});
  if (i < count) f(i, Part{(int)(count - i)});
}

// ---- Reductions

typedef float Float4 __attribute__((vector_size(16)));

/// The sum of the lanes as a tree: l + (l+8), then + (l+4), + (l+2), + (l+1).
FORETOKEN_INLINE float sum(Vec v) {
#if defined(__AVX512F__)
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256((__m512)v.p[0]), _mm512_extractf32x8_ps((__m512)v.p[0], 1));
  const Float4 four = (Float4)_mm256_castps256_ps128(eight) + (Float4)_mm256_extractf128_ps(eight, 1);
#elif defined(__AVX2__)
  const __m256 eight = (__m256)(v.p[0] + v.p[1]);
  const Float4 four = (Float4)_mm256_castps256_ps128(eight) + (Float4)_mm256_extractf128_ps(eight, 1);
#else
  const Float4 four = (v.p[0] + v.p[2]) + (v.p[1] + v.p[3]);
#endif
  return (four[0] + four[2]) + (four[1] + four[3]);
}

FORETOKEN_INLINE float greatest(Vec v) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps((__m512)v.p[0]);
#elif defined(__AVX2__)
  const __m256 eight = _mm256_max_ps((__m256)v.p[0], (__m256)v.p[1]);
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
#else
  float lanes[kLanes];
  store(lanes, v);
  float result = lanes[0];
  for (int l = 1; l < kLanes; ++l) result = lanes[l] > result ? lanes[l] : result;
  return result;
#endif
}

/// Σ over `count` columns: step(accumulator, i, lanes) adds the columns from i on. Four vectors of sums that take
/// turns, then the tree (0 + 1) + (2 + 3), then `sum`: an order that depends on `count` only.
template <typename Step>
FORETOKEN_INLINE float reduce(std::int64_t count, const Step& step) {
  Vec a = zero(), b = zero(), c = zero(), d = zero();
  std::int64_t i = 0;
  for (; i + 4 * kLanes <= count; i += 4 * kLanes) {
    a = step(a, i, Full{});
    b = step(b, i + kLanes, Full{});
    c = step(c, i + 2 * kLanes, Full{});
    d = step(d, i + 3 * kLanes, Full{});
  }
  if (i + kLanes <= count) { a = step(a, i, Full{}); i += kLanes; }
  if (i + kLanes <= count) { b = step(b, i, Full{}); i += kLanes; }
  if (i + kLanes <= count) { c = step(c, i, Full{}); i += kLanes; }
  if (i < count) d = step(d, i, Part{(int)(count - i)});
  return sum((a + b) + (c + d));
}

// ---- Lane numbers and choices between lanes

FORETOKEN_INLINE VecInt lane_numbers(std::int32_t first) {
  VecInt r;
#if defined(__AVX512F__)
  r.p[0] = IntPart{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15} + first;
#elif defined(__AVX2__)
  r.p[0] = IntPart{0, 1, 2, 3, 4, 5, 6, 7} + first;
  r.p[1] = IntPart{8, 9, 10, 11, 12, 13, 14, 15} + first;
#else
  for (int i = 0; i < kParts; ++i) r.p[i] = IntPart{0, 1, 2, 3} + (first + 4 * i);
#endif
  return r;
}

/// x where first <= number <= last, else `other`.
FORETOKEN_INLINE Vec within(VecInt number, std::int32_t first, std::int32_t last, Vec x, Vec other) {
  Vec r;
#define X(i) r.p[i] = ((number.p[i] >= first) & (number.p[i] <= last)) ? x.p[i] : other.p[i];
  FORETOKEN_EACH_PART(X)
#undef X
  return r;
}

// ---- Exponential

/// p · 2^n for whole numbers n in [-151, 129].
FORETOKEN_INLINE Vec scale_by_power(Vec p, Vec n) {
#if defined(__AVX512F__)
  return {{(FloatPart)_mm512_scalef_ps((__m512)p.p[0], (__m512)n.p[0])}};
#else
  // In two steps, each of which is a normal number, so that overflow and gradual underflow come out rounded once.
  Vec r;
#define X(i)                                                                  \
  {                                                                           \
    const IntPart whole = __builtin_convertvector(n.p[i], IntPart);           \
    const IntPart half = whole >> 1;                                          \
    r.p[i] = p.p[i] * (FloatPart)((half + 127) << 23) * (FloatPart)((whole - half + 127) << 23); \
  }
  FORETOKEN_EACH_PART(X)
#undef X
  return r;
#endif
}

/// e^x: x = n ln 2 + r with |r| <= ln 2 / 2, then 1 + r + r² q(r) with q the polynomial of degree 4 that makes the
/// relative error least (3.2e-9). Within 1 ulp of the exact value where that is a normal number (1.5 without fused
/// multiply-add); 0 below -104, infinity above 88.73, NaN for NaN.
FORETOKEN_INLINE Vec exp(Vec x) {
  // Limits first: max and min give their second operand for NaN.
  x = min(broadcast(89.0f), max(broadcast(-104.0f), x));
  const Vec magic = broadcast(12582912.0f);  // 1.5 · 2^23: adding it rounds to a whole number
  const Vec n = fma(x, broadcast(1.44269504f), magic) - magic;
  // ln 2 in two parts, the first short enough for n times it to be exact.
  Vec r = fma(n, broadcast(-0.693359375f), x);
  r = fma(n, broadcast(2.12194440e-4f), r);
  Vec q = broadcast(0x1.6a1f62p-10f);
  q = fma(q, r, broadcast(0x1.123cccp-7f));
  q = fma(q, r, broadcast(0x1.555904p-5f));
  q = fma(q, r, broadcast(0x1.55548ep-3f));
  q = fma(q, r, broadcast(0x1.fffffcp-2f));
  const Vec p = fma(q, r * r, r) + broadcast(1.0f);
  return scale_by_power(p, n);
}

/// 1 / (1 + e^-x)
FORETOKEN_INLINE Vec sigmoid(Vec x) { return broadcast(1.0f) / (broadcast(1.0f) + exp(-x)); }

}  // namespace
}  // namespace foretoken::cpu
