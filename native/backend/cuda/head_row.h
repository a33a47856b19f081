#pragma once

#include "backend/cuda/device/chunk.h"
#include "backend/cuda/device/launch.h"
#include "backend/cuda/device/reduce.h"

// Statistics of a row of logits, one block per row: scoring and sampling share them, and so their bits. Every sum is a
// thread's chunks in order and then reduce_block; the number of threads depends on V only.
namespace foretoken::cuda {

inline int head_threads(std::int64_t vocabulary) { return threads_for(chunks_in(vocabulary), 512); }

/// Below this an exponential is 0; the bound keeps 0 · (−∞) out of the sums.
FORETOKEN_DEVICE float not_below_vanishing(float difference) { return max_of(-200.0f, difference); }

struct RowStatistics {
  float max;      // of z = logits · inverse_temperature
  float log_sum;  // log Σ exp(z − max)
  float entropy;  // of softmax(z), nats
};

/// The greatest logit; NaN if any is NaN.
FORETOKEN_DEVICE float greatest_logit(const float* logits, std::int64_t vocabulary, bool aligned) {
  float greatest = -INFINITY;
  for (std::int64_t chunk = thread_index(); chunk < chunks_in(vocabulary); chunk += block_threads()) {
    const std::int64_t begin = chunk * kChunk, count = vocabulary - begin;
    float v[kChunk];
    load_chunk(logits + begin, count, aligned, v);
#pragma unroll
    for (int i = 0; i < kChunk; ++i)
      if (i < count) greatest = Greatest()(greatest, v[i]);
  }
  return reduce_block(greatest, Greatest());
}

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

FORETOKEN_DEVICE RowStatistics row_statistics(const float* logits, std::int64_t vocabulary, bool aligned, float inverse_temperature) {
  RowStatistics row;
  row.max = greatest_logit(logits, vocabulary, aligned) * inverse_temperature;
  const Sums sums = softmax_sums(logits, vocabulary, aligned, inverse_temperature, row.max, [](float) { return true; });
  row.log_sum = log_of_sum(sums.weight);
  row.entropy = row.log_sum - sums.moment / sums.weight;
  return row;
}

FORETOKEN_DEVICE float logprob_of(const RowStatistics& row, float logit, float inverse_temperature) {
  return (logit * inverse_temperature - row.max) - row.log_sum;
}

}  // namespace foretoken::cuda
