#pragma once

#include "backend/cpu/kernels/norm.h"
#include "backend/cpu/kernels/units.h"

namespace foretoken::cpu {
namespace {

// head -> rotate(norm(head)): (a, b) -> (a cos − b sin, b cos + a sin) for the halves a, b
template <typename T>
FORETOKEN_INLINE void rope_head_forward(const T* x, const float* norm, float epsilon, const float* cos_sin,
                                        int head_dim, T* y) {
  const int half = head_dim / 2;
  const Vec rstd = broadcast(norm ? reciprocal_rms(x, head_dim, epsilon) : 1.0f);
  for_vectors(half, [&](std::int64_t i, auto lanes) {
    Vec a = load(x + i, lanes), b = load(x + half + i, lanes);
    if (norm) {
      a = a * rstd * load(norm + i, lanes);
      b = b * rstd * load(norm + half + i, lanes);
    }
    const Vec cos = load(cos_sin + i, lanes), sin = load(cos_sin + half + i, lanes);
    store(y + i, fma(a, cos, -(b * sin)), lanes);
    store(y + half + i, fma(b, cos, a * sin), lanes);
  });
}

// The rotation back, then norm_backward of the head; dnorm (D) is added to. g (D) holds the rotated-back gradient.
template <typename T>
FORETOKEN_INLINE void rope_head_backward(const float* dy, const T* x, const float* norm, float epsilon,
                                         const float* cos_sin, int head_dim, float* g, float* dnorm, T* dx) {
  const int half = head_dim / 2;
  for_vectors(half, [&](std::int64_t i, auto lanes) {
    const Vec a = load(dy + i, lanes), b = load(dy + half + i, lanes);
    const Vec cos = load(cos_sin + i, lanes), sin = load(cos_sin + half + i, lanes);
    const Vec back_a = fma(a, cos, b * sin), back_b = fma(b, cos, -(a * sin));
    if (norm) {
      store(g + i, back_a, lanes);
      store(g + half + i, back_b, lanes);
    } else {
      store(dx + i, back_a, lanes);
      store(dx + half + i, back_b, lanes);
    }
  });
  if (!norm) return;
  const float rstd = reciprocal_rms(x, head_dim, epsilon);
  const float projection = reduce(head_dim, [&](Vec total, std::int64_t i, auto lanes) {
    return fma(load(g + i, lanes) * load(norm + i, lanes), load(x + i, lanes), total);
  });
  const Vec scale = broadcast(rstd), back = broadcast(-(rstd * rstd * rstd) * (projection / (float)head_dim));
  for_vectors(head_dim, [&](std::int64_t i, auto lanes) {
    const Vec value = load(x + i, lanes), upstream = load(g + i, lanes);
    store(dnorm + i, fma(upstream * scale, value, load(dnorm + i, lanes)), lanes);
    store(dx + i, fma(value, back, upstream * load(norm + i, lanes) * scale), lanes);
  });
}

/// A key (D) and a value (D) into a lane of their head's page, whose layout attention_forward.h has.
template <typename T>
FORETOKEN_INLINE void write_lane(const T* key, const T* value, int head_dim, int lane, T* page_of_head) {
  constexpr int unit = kUnit<T>;
  T* values = page_of_head + head_dim * kLanes + lane / unit * unit * head_dim;
  for (int d = 0; d < head_dim; d += unit)
    __builtin_memcpy(page_of_head + d * kLanes + lane * unit, key + d, sizeof(Word));
  int d = 0;
#if defined(__AVX512BW__)
  if constexpr (unit == 2) {
    // Every second number: the others are a neighbour's, whom another thread may be writing.
    const __m128i place = _mm_cvtsi32_si128(lane % 2 * 16);
    const __mmask32 mask = lane % 2 == 0 ? 0x55555555u : 0xaaaaaaaau;
    for (; d + kLanes <= head_dim; d += kLanes) {
      const __m512i numbers = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)(value + d)));
      _mm512_mask_storeu_epi16(values + 2 * d, mask, _mm512_sll_epi32(numbers, place));
    }
  }
#endif
  for (; d < head_dim; ++d) values[d * unit + lane % unit] = value[d];
}

template <typename T>
void rope_forward(const RopeRows& job) {
  const int D = job.head_dim;
  for (std::int64_t r = 0; r < job.rows; ++r) {
    const T* qkv = (const T*)job.qkv + r * job.qkv_stride;
    const float* cos_sin = job.rope + job.positions[r] * job.rope_stride;
    T* q = (T*)job.q + r * job.q_stride;
    T* k = (T*)job.k + r * job.k_stride;
    for (int h = 0; h < job.heads; ++h)
      rope_head_forward(qkv + h * D, job.q_norm, job.epsilon, cos_sin, D, q + h * D);
    for (int h = 0; h < job.kv_heads; ++h)
      rope_head_forward(qkv + (job.heads + h) * D, job.k_norm, job.epsilon, cos_sin, D, k + h * D);
    const T* v = qkv + (job.heads + job.kv_heads) * D;
    for (std::int32_t w = job.row_begin[r]; w < job.row_begin[r + 1]; ++w) {
      const int lane = job.slots[w] % kPagePositions, page_of_head = 2 * kPagePositions * D;
      T* page = (T*)job.pages + (std::int64_t)(job.slots[w] / kPagePositions) * job.kv_heads * page_of_head;
      for (int h = 0; h < job.kv_heads; ++h) write_lane(k + h * D, v + h * D, D, lane, page + h * page_of_head);
    }
  }
}

template <typename T>
void rope_backward(const RopeRows& job) {
  const int D = job.head_dim;
  if (job.q_norm) for_vectors(D, [&](std::int64_t i, auto lanes) { store(job.dq_norm + i, zero(), lanes); });
  if (job.k_norm) for_vectors(D, [&](std::int64_t i, auto lanes) { store(job.dk_norm + i, zero(), lanes); });
  for (std::int64_t r = 0; r < job.rows; ++r) {
    const T* qkv = (const T*)job.qkv + r * job.qkv_stride;
    T* dqkv = (T*)job.dqkv + r * job.dqkv_stride;
    const float* cos_sin = job.rope + job.positions[r] * job.rope_stride;
    for (int h = 0; h < job.heads; ++h)
      rope_head_backward(job.dq + r * job.dq_stride + h * D, qkv + h * D, job.q_norm, job.epsilon, cos_sin, D,
                         job.scratch, job.dq_norm, dqkv + h * D);
    for (int h = 0; h < job.kv_heads; ++h) {
      const int key = (job.heads + h) * D;
      rope_head_backward(job.dk + r * job.dk_stride + h * D, qkv + key, job.k_norm, job.epsilon, cos_sin, D,
                         job.scratch, job.dk_norm, dqkv + key);
    }
    const float* dv = job.dv + r * job.dv_stride;
    T* out = dqkv + (job.heads + job.kv_heads) * D;
    for_vectors(job.kv_heads * D, [&](std::int64_t i, auto lanes) { store(out + i, load(dv + i, lanes), lanes); });
  }
}

}  // namespace
}  // namespace foretoken::cpu
