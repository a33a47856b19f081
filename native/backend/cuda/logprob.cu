#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/head_row.h"
#include "backend/cuda/select.h"

namespace foretoken::cuda {

namespace {

// Log-probs of the row's targets, log-sum-exp, entropy, and the entropy of the k greatest, all of z = logits ·
// inverse_temperature: head_row.h. Reads the row once, without the entropy of the k greatest.
FORETOKEN_KERNEL void FORETOKEN_BOUNDS(kMostHeadThreads)
    logprob_forward_kernel(Matrix<const float> logits, std::int64_t vocabulary, float inverse_temperature, Targets targets,
                           float* logprobs, float* lse, float* entropy, float* top_entropy, std::int32_t top_k) {
  const std::int64_t n = block_index();
  const float* row = logits.row(n);
  const RowStatistics statistics = row_statistics(row, vocabulary, logits.aligned, inverse_temperature);
  for (std::int32_t t = targets.row_begin[n] + thread_index(); t < targets.row_begin[n + 1]; t += block_threads())
    logprobs[t] = logprob_of(statistics, row[targets.tokens[t]], inverse_temperature);
  if (thread_index() == 0) {
    lse[n] = statistics.max + statistics.log_sum;
    entropy[n] = statistics.entropy;
  }
  if (!top_entropy) return;
  // All that is greater than the k-th, and as many equals as are missing, which weigh the same whichever they are.
  const std::uint64_t k = static_cast<std::uint64_t>(min_of<std::int64_t>(top_k, vocabulary));
  const Selection least = select(
      vocabulary, k, [&](std::int64_t i) { return order_key(row[i]); }, [](std::int64_t) { return std::uint64_t{1}; });
  Sums sums = softmax_sums(row, vocabulary, logits.aligned, inverse_temperature, statistics.max,
                           [&](float logit) { return order_key(logit) > least.key; });
  const std::uint32_t bits = least.key & 0x80000000u ? least.key & 0x7fffffffu : ~least.key;
  const float difference = not_below_vanishing(float_of_bits(bits) * inverse_temperature - statistics.max);
  const float weight = static_cast<float>(least.missing) * expf(difference);
  sums.weight += weight;
  sums.moment = fmaf(weight, difference, sums.moment);
  if (thread_index() == 0) top_entropy[n] = log_of_sum(sums.weight) - sums.moment / sums.weight;
}

// dlogits = inverse_temperature · (Σ_t dlogprobs[t] (onehot(t) − p) − dentropy · p · (log p + entropy)); a block per row.
// Moves a float32 and a T for each logit.
template <typename T>
FORETOKEN_KERNEL void FORETOKEN_BOUNDS(kMostHeadThreads)
    logprob_backward_kernel(Matrix<const float> logits, std::int64_t vocabulary, float inverse_temperature, Targets targets,
                            const float* lse, const float* entropies, const float* dlogprobs, const float* dentropies,
                            Matrix<T> dlogits) {
  const std::int64_t n = block_index();
  const float* row = logits.row(n);
  T* out = dlogits.row(n);
  const std::int32_t first = targets.row_begin[n], last = targets.row_begin[n + 1];
  float total = 0;
  for (std::int32_t t = first; t < last; ++t) total += dlogprobs[t];
  const float shift = -lse[n], dentropy = dentropies[n], entropy = entropies[n];
  const auto spread = [&](float logit) {
    const float log_p = not_below_vanishing(fmaf(logit, inverse_temperature, shift));
    return -(expf(log_p) * fmaf(dentropy, log_p + entropy, total)) * inverse_temperature;
  };
  for (std::int64_t chunk = thread_index(); chunk < chunks_in(vocabulary); chunk += block_threads()) {
    const std::int64_t begin = chunk * kChunk, count = vocabulary - begin;
    float v[kChunk];
    load_chunk(row + begin, count, logits.aligned, v);
#pragma unroll
    for (int i = 0; i < kChunk; ++i) v[i] = spread(v[i]);
    store_chunk(out + begin, count, dlogits.aligned, v);
  }
  sync_block();  // the targets' elements are written once more
  for (std::int32_t t = first + thread_index(); t < last; t += block_threads()) {
    const std::int32_t token = targets.tokens[t];
    float here_too = 0;
    bool seen = false;
    for (std::int32_t u = first; u < last; ++u) {
      if (targets.tokens[u] != token) continue;
      seen = seen || u < t;
      here_too += dlogprobs[u];
    }
    if (!seen) out[token] = narrow<T>(fmaf(here_too, inverse_temperature, spread(row[token])));
  }
}

}  // namespace

void CudaBackend::logprob_forward(View logits, double inverse_temperature, const Targets& targets, View logprobs,
                                  View lse, View entropy, View top_entropy, std::int32_t top_k) {
  FORETOKEN_LAUNCH(*device_, logprob_forward_kernel, (Grid{logits.rows, head_threads(logits.cols)}), matrix<const float>(logits),
                   logits.cols, static_cast<float>(inverse_temperature), targets, logprobs.as<float>(), lse.as<float>(),
                   entropy.as<float>(), top_entropy.as<float>(), top_k);
}

void CudaBackend::logprob_backward(View logits, double inverse_temperature, const Targets& targets, View lse,
                                   View entropy, View dlogprobs, View dentropy, View dlogits) {
  with_type(dtype_, [&](auto t) {
    using T = decltype(t);
    FORETOKEN_LAUNCH(*device_, (logprob_backward_kernel<T>), (Grid{logits.rows, head_threads(logits.cols)}),
                     matrix<const float>(logits), logits.cols, static_cast<float>(inverse_temperature), targets, lse.as<float>(),
                     entropy.as<float>(), dlogprobs.as<float>(), dentropy.as<float>(), matrix<T>(dlogits));
  });
}

}  // namespace foretoken::cuda
