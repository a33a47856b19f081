#include <cmath>

#include "backend/cpu/operations.h"
#include "backend/cpu/softmax_row.h"
#include "core/error.h"

namespace foretoken::cpu {

namespace {

/// Entropy of the softmax of `count` tempered logits, the greatest first, in that order.
float entropy_of(const float* logits, int count, float inverse_temperature) {
  double sum = 0, moment = 0;
  for (int i = 0; i < count; ++i) {
    const double difference = (static_cast<double>(logits[i]) - logits[0]) * inverse_temperature;
    const double weight = std::exp(difference);
    if (weight == 0) continue;
    sum += weight;
    moment += weight * difference;
  }
  return static_cast<float>(std::log(sum) - moment / sum);
}

}  // namespace

void CpuBackend::logprob_forward(View logits, double inverse_temperature, const Targets& targets, View logprobs,
                                 View lse, View entropy, View top_entropy, std::int32_t top_k) {
  if (top_entropy && (top_k < 1 || top_k > kGreatestTopK))
    fail(ErrorCode::InvalidArgument, "the entropy of the top k takes a k from 1 to ", kGreatestTopK, ", not ", top_k);
  const float factor = static_cast<float>(inverse_temperature);
  for_rows(logits.rows, logits.cols, [&](std::int64_t begin, std::int64_t rows, int) {
    for (std::int64_t n = begin; n < begin + rows; ++n) {
      const float* row = logits.row<float>(n);
      const RowStatistics statistics = kernels_.row_statistics(row, logits.cols, factor, nullptr);
      for (std::int32_t t = targets.row_begin[n]; t < targets.row_begin[n + 1]; ++t)
        logprobs.as<float>()[t] = logprob_of(statistics, row[targets.tokens[t]], factor);
      lse.as<float>()[n] = statistics.max + statistics.log_sum;
      entropy.as<float>()[n] = statistics.entropy;
      if (!top_entropy) continue;
      float greatest[kGreatestTopK];
      const int k = static_cast<int>(std::min<std::int64_t>(top_k, logits.cols));
      kernels_.top_values(row, logits.cols, k, greatest);
      top_entropy.as<float>()[n] = entropy_of(greatest, k, factor);
    }
  });
}

void CpuBackend::logprob_backward(View logits, double inverse_temperature, const Targets& targets, View lse,
                                  View entropy, View dlogprobs, View dentropy, View dlogits) {
  for_rows(logits.rows, logits.cols, [&](std::int64_t begin, std::int64_t rows, int) {
    for (std::int64_t n = begin; n < begin + rows; ++n) {
      const std::int32_t first = targets.row_begin[n];
      LogprobGradient job;
      job.logits = logits.row<float>(n);
      job.inverse_temperature = static_cast<float>(inverse_temperature);
      job.lse = lse.as<float>()[n];
      job.entropy = entropy.as<float>()[n];
      job.targets = targets.tokens + first;
      job.dlogprobs = dlogprobs.as<float>() + first;
      job.targets_count = targets.row_begin[n + 1] - first;
      job.dentropy = dentropy.as<float>()[n];
      job.dlogits = dlogits.slice_rows(n, 1).data;
      job.cols = logits.cols;
      kernels_.logprob_backward(job);
    }
  });
}

}  // namespace foretoken::cpu
