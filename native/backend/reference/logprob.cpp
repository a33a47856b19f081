#include <functional>

#include "backend/reference/log_sum_exp.h"
#include "backend/reference/reference_backend.h"

namespace foretoken {

using namespace reference;

// logprob of t = z_t − lse with z = logits · inverse_temperature; the entropy of the top k is that of their softmax
void ReferenceBackend::logprob_forward(View logits, double inverse_temperature, const Targets& targets, View logprobs,
                                       View lse, View entropy, View top_entropy, std::int32_t top_k) {
  for (std::int64_t n = 0; n < logits.rows; ++n) {
    Vector z = tempered_row(logits, n, inverse_temperature);
    const double log_sum = log_sum_exp(z);
    for (std::int32_t t = targets.row_begin[n]; t < targets.row_begin[n + 1]; ++t)
      set(logprobs, 0, t, z[targets.tokens[t]] - log_sum);
    set(lse, 0, n, log_sum);
    set(entropy, 0, n, entropy_of(z, log_sum));
    if (!top_entropy) continue;
    std::sort(z.begin(), z.end(), std::greater<>());
    z.resize(std::min<std::size_t>(z.size(), static_cast<std::size_t>(top_k)));
    set(top_entropy, 0, n, entropy_of(z, log_sum_exp(z)));
  }
}

void ReferenceBackend::logprob_backward(View logits, double inverse_temperature, const Targets& targets, View lse,
                                        View entropy, View dlogprobs, View dentropy, View dlogits) {
  for (std::int64_t n = 0; n < logits.rows; ++n) {
    const Vector z = tempered_row(logits, n, inverse_temperature);
    double total = 0;
    for (std::int32_t t = targets.row_begin[n]; t < targets.row_begin[n + 1]; ++t) total += get(dlogprobs, 0, t);
    Vector dz(z.size());
    for (std::size_t c = 0; c < z.size(); ++c) {
      const double log_p = z[c] - get(lse, 0, n);
      dz[c] = -std::exp(log_p) * (total + get(dentropy, 0, n) * (log_p + get(entropy, 0, n)));
    }
    for (std::int32_t t = targets.row_begin[n]; t < targets.row_begin[n + 1]; ++t)
      dz[targets.tokens[t]] += get(dlogprobs, 0, t);
    for (double& value : dz) value *= inverse_temperature;
    set_row(dlogits, n, dz);
  }
}

}  // namespace foretoken
