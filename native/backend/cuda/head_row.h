#pragma once

#include "backend/cuda/device/chunk.h"
#include "backend/cuda/device/launch.h"
#include "backend/cuda/device/reduce.h"

// Statistics of a row of logits, one block per row: scoring and sampling share them, and so their bits. Every sum is a
// thread's chunks in order and then reduce_block; the number of threads depends on V only.
namespace foretoken::cuda {

inline constexpr int kMostHeadThreads = 512;  // the kernels' bounds: with more than 128 registers they would not start
inline int head_threads(std::int64_t vocabulary) { return threads_for(chunks_in(vocabulary), kMostHeadThreads); }

/// Below this an exponential is 0; the bound keeps 0 · (−∞) out of the sums.
FORETOKEN_DEVICE float not_below_vanishing(float difference) { return max_of(-200.0f, difference); }

struct RowStatistics {
  float max;      // of z = logits · inverse_temperature
  float log_sum;  // log Σ exp(z − max)
  float entropy;  // of softmax(z), nats
};

/// {Σ e, Σ e · d} over the elements that `keep` wants, with d = z − max z and e = exp(d).
struct Sums {
  float weight, moment;
};

template <typename Keep>
FORETOKEN_DEVICE Sums softmax_sums(const float* logits, std::int64_t vocabulary, bool aligned, float inverse_temperature, float max_z,
                                   const Keep& keep) {
  Sums sums{0, 0};
  for (std::int64_t chunk = thread_index(); chunk < chunks_in(vocabulary); chunk += block_threads()) {
    const std::int64_t begin = chunk * kChunk, count = vocabulary - begin;
    float v[kChunk];
    load_chunk(logits + begin, count, aligned, v);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
      const float difference = not_below_vanishing(v[i] * inverse_temperature - max_z);
      const float weight = i < count && keep(v[i]) ? expf(difference) : 0.0f;
      sums.weight += weight;
      sums.moment = fmaf(weight, difference, sums.moment);
    }
  }
  sums.weight = sum_block(sums.weight);
  sums.moment = sum_block(sums.moment);
  return sums;
}

FORETOKEN_DEVICE float log_of_sum(float sum) { return static_cast<float>(log(static_cast<double>(sum))); }

/// A softmax's sums over some elements relative to their own greatest: {max z, Σ e, Σ e · d}.
struct RunningSums {
  float max, weight, moment;

  /// Puts the sums on a greater maximum; NaN as maximum makes all of it NaN.
  FORETOKEN_DEVICE void raise(float to) {
    if (to == max) return;
    const float difference = not_below_vanishing(max - to), factor = expf(difference);  // 0 where max is −∞
    moment = factor * fmaf(weight, difference, moment);
    weight *= factor;
    max = to;
  }
};

FORETOKEN_DEVICE RunningSums shuffle_xor(RunningSums sums, int mask) {
  return {shuffle_xor(sums.max, mask), shuffle_xor(sums.weight, mask), shuffle_xor(sums.moment, mask)};
}

struct AddRunningSums {
  FORETOKEN_DEVICE RunningSums operator()(RunningSums a, RunningSums b) const {
    const float max = Greatest()(a.max, b.max);
    a.raise(max);
    b.raise(max);
    return {max, a.weight + b.weight, a.moment + b.moment};
  }
};

/// One pass over the row, which calls see(token, logit) for the thread's logits: the sums of what a thread has seen are put
/// on a new maximum where there is one.
template <typename See>
FORETOKEN_DEVICE RowStatistics row_statistics(const float* logits, std::int64_t vocabulary, bool aligned, float inverse_temperature,
                                              const See& see) {
  RunningSums sums{-INFINITY, 0, 0};
  for (std::int64_t chunk = thread_index(); chunk < chunks_in(vocabulary); chunk += block_threads()) {
    const std::int64_t begin = chunk * kChunk, count = vocabulary - begin;
    float z[kChunk];
    load_chunk(logits + begin, count, aligned, z);
    float max = sums.max;
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
      if (i < count) see(begin + i, z[i]);
      z[i] = i < count ? z[i] * inverse_temperature : -INFINITY;
      max = Greatest()(max, z[i]);
    }
    if (max == -INFINITY) continue;
    sums.raise(max);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
      const float difference = not_below_vanishing(z[i] - max), weight = expf(difference);
      sums.weight += weight;
      sums.moment = fmaf(weight, difference, sums.moment);
    }
  }
  sums = reduce_block(sums, AddRunningSums());
  RowStatistics row;
  row.max = sums.max;
  row.log_sum = log_of_sum(sums.weight);
  row.entropy = row.log_sum - sums.moment / sums.weight;
  return row;
}

FORETOKEN_DEVICE RowStatistics row_statistics(const float* logits, std::int64_t vocabulary, bool aligned, float inverse_temperature) {
  return row_statistics(logits, vocabulary, aligned, inverse_temperature, [](std::int64_t, float) {});
}

FORETOKEN_DEVICE float logprob_of(const RowStatistics& row, float logit, float inverse_temperature) {
  return (logit * inverse_temperature - row.max) - row.log_sum;
}

}  // namespace foretoken::cuda
