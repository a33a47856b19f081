#pragma once

#include "backend/cpu/kernels/kernels.h"
#include "backend/cpu/kernels/vec.h"

namespace foretoken::cpu {
namespace {

// Below this an exponential is 0; a bound on differences keeps 0 · (−∞) out of the sums.
constexpr float kVanishing = -200.0f;

/// The greatest of x; NaNs are passed over.
FORETOKEN_INLINE float greatest_of(const float* x, std::int64_t count) {
  const Vec lowest = broadcast(-__builtin_inff());
  Vec a = lowest, b = lowest, c = lowest, d = lowest;
  std::int64_t i = 0;
  for (; i + 4 * kLanes <= count; i += 4 * kLanes) {
    a = max(a, load(x + i));
    b = max(b, load(x + i + kLanes));
    c = max(c, load(x + i + 2 * kLanes));
    d = max(d, load(x + i + 3 * kLanes));
  }
  float result = greatest(max(max(a, b), max(c, d)));
  for (; i < count; ++i) result = x[i] > result ? x[i] : result;
  return result;
}

// With z = logits · inverse_temperature, m = max z, e = exp(z − m): log_sum = log Σ e and
// entropy = log_sum − Σ e (z − m) / Σ e. Both sums in the order of `reduce`, which depends on V only.
template <bool keeps_weights>
FORETOKEN_INLINE RowStatistics statistics_of(const float* logits, std::int64_t cols, float inverse_temperature,
                                             float* weights) {
  const float max_z = greatest_of(logits, cols) * inverse_temperature;
  const Vec factor = broadcast(inverse_temperature), shift = broadcast(max_z), vanishing = broadcast(kVanishing);
  Vec sums[4], moments[4];
#pragma GCC unroll 4
  for (int a = 0; a < 4; ++a) sums[a] = moments[a] = zero();
  const auto step = [&](Vec& sum, Vec& moment, std::int64_t i, auto lanes) {
    const Vec difference = max(vanishing, load(logits + i, lanes) * factor - shift);
    Vec weight = exp(difference);
    if (lanes_in(lanes) < kLanes) weight = within(lane_numbers(0), 0, lanes_in(lanes) - 1, weight, zero());
    if constexpr (keeps_weights) store(weights + i, weight, lanes);
    sum = sum + weight;
    moment = fma(weight, difference, moment);
  };
  std::int64_t i = 0;
  for (; i + 4 * kLanes <= cols; i += 4 * kLanes) {
#pragma GCC unroll 4
    for (int a = 0; a < 4; ++a) step(sums[a], moments[a], i + a * kLanes, Full{});
  }
  if (i + kLanes <= cols) { step(sums[0], moments[0], i, Full{}); i += kLanes; }
  if (i + kLanes <= cols) { step(sums[1], moments[1], i, Full{}); i += kLanes; }
  if (i + kLanes <= cols) { step(sums[2], moments[2], i, Full{}); i += kLanes; }
  if (i < cols) step(sums[3], moments[3], i, Part{(int)(cols - i)});
  const float total = sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
  const float moment = sum((moments[0] + moments[1]) + (moments[2] + moments[3]));
  RowStatistics result;
  result.max = max_z;
  result.log_sum = (float)__builtin_log((double)total);
  result.entropy = result.log_sum - moment / total;
  return result;
}

RowStatistics row_statistics(const float* logits, std::int64_t cols, float inverse_temperature, float* weights) {
  return weights ? statistics_of<true>(logits, cols, inverse_temperature, weights)
                 : statistics_of<false>(logits, cols, inverse_temperature, nullptr);
}

FORETOKEN_INLINE bool any_greater(Vec a, Vec b) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask((__m512)a.p[0], (__m512)b.p[0], _CMP_GT_OQ) != 0;
#elif defined(__AVX2__)
  return _mm256_movemask_ps((__m256)((a.p[0] > b.p[0]) | (a.p[1] > b.p[1]))) != 0;
#else
  IntPart found{};
  for (int i = 0; i < kParts; ++i) found |= a.p[i] > b.p[i];
  return (found[0] | found[1] | found[2] | found[3]) != 0;
#endif
}

void top_values(const float* x, std::int64_t count, int k, float* values) {
  for (int i = 0; i < k; ++i) values[i] = -__builtin_inff();
  const auto offer = [&](float value) {
    if (!(value > values[k - 1])) return;
    int at = k - 1;
    for (; at > 0 && values[at - 1] < value; --at) values[at] = values[at - 1];
    values[at] = value;
  };
  std::int64_t i = 0;
  for (; i + 4 * kLanes <= count; i += 4 * kLanes) {
    const Vec first = max(load(x + i), load(x + i + kLanes));
    const Vec second = max(load(x + i + 2 * kLanes), load(x + i + 3 * kLanes));
    if (!any_greater(max(first, second), broadcast(values[k - 1]))) continue;
    for (int l = 0; l < 4 * kLanes; ++l) offer(x[i + l]);
  }
  for (; i < count; ++i) offer(x[i]);
}

// dlogits = inverse_temperature · (Σ_t dlogprobs[t] (onehot(t) − p) − dentropy · p · (log p + entropy))
template <typename T>
void logprob_backward(const LogprobGradient& job) {
  float total = 0;
  for (std::int64_t t = 0; t < job.targets_count; ++t) total += job.dlogprobs[t];
  const Vec factor = broadcast(job.inverse_temperature), shift = broadcast(-job.lse), vanishing = broadcast(kVanishing);
  const Vec all_targets = broadcast(total), dentropy = broadcast(job.dentropy), entropy = broadcast(job.entropy);
  const auto spread = [&](Vec logits) {
    const Vec log_p = max(vanishing, fma(logits, factor, shift));
    return -(exp(log_p) * fma(dentropy, log_p + entropy, all_targets)) * factor;
  };
  T* dlogits = (T*)job.dlogits;
  for_vectors(job.cols, [&](std::int64_t i, auto lanes) {
    store(dlogits + i, spread(load(job.logits + i, lanes)), lanes);
  });
  for (std::int64_t t = 0; t < job.targets_count; ++t) {
    const std::int32_t token = job.targets[t];
    float here = 0;
    bool seen = false;
    for (std::int64_t u = 0; u < job.targets_count; ++u) {
      if (job.targets[u] != token) continue;
      seen = seen || u < t;
      here += job.dlogprobs[u];
    }
    if (seen) continue;
    const Vec value = fma(broadcast(here), factor, spread(broadcast(job.logits[token])));
    store(dlogits + token, value, Part{1});
  }
}

void sampling_weights(const float* x, std::int64_t count, float max_x, float inverse_temperature, float* weights) {
  const Vec shift = broadcast(max_x), factor = broadcast(inverse_temperature);
  for_vectors(count, [&](std::int64_t i, auto lanes) {
    store(weights + i, exp((load(x + i, lanes) - shift) * factor), lanes);
  });
}

void chunk_sums(const float* weights, std::int64_t count, float* sums) {
  for (std::int64_t begin = 0; begin < count; begin += kWeightChunk) {
    const std::int64_t size = count - begin < kWeightChunk ? count - begin : kWeightChunk;
    sums[begin / kWeightChunk] =
        reduce(size, [&](Vec total, std::int64_t i, auto lanes) { return total + load(weights + begin + i, lanes); });
  }
}

float greatest_or_nan(const float* x, std::int64_t count) {
  // Zero times anything finite is zero; banned tokens are −∞ and come out finite through the limit.
  const Vec limit = broadcast(-1.0f);
  const float poison = reduce(count, [&](Vec total, std::int64_t i, auto lanes) {
    return fma(max(limit, min(broadcast(1.0f), load(x + i, lanes))), zero(), total);
  });
  return greatest_of(x, count) + poison;
}

}  // namespace
}  // namespace foretoken::cpu
