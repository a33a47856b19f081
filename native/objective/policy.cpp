#include "objective/policy.h"

#include <algorithm>
#include <cmath>

namespace foretoken {

Surrogate surrogate(const PolicyTerm& term, double ratio, double advantage, double logprob) {
  Surrogate result;
  const double low = 1 - term.clip_low, high = 1 + term.clip_high;
  const double clamped = std::clamp(ratio, low, high);
  result.clipped_low = ratio < low && advantage < 0;
  result.clipped_high = ratio > high && advantage > 0;
  if (term.loss == PolicyLoss::Cispo) {
    result.loss = -clamped * advantage * logprob;
    result.derivative = -clamped * advantage;
    return result;
  }
  const double plain = ratio * advantage, bounded = clamped * advantage;
  double objective = plain;
  double derivative = plain;  // d(r·A) / d log r
  if (bounded < plain) {
    objective = bounded;
    derivative = 0;
  }
  if (term.dual_clip > 0 && advantage < 0 && objective < term.dual_clip * advantage) {
    objective = term.dual_clip * advantage;
    derivative = 0;
    result.dual_clipped = true;
  }
  result.loss = -objective;
  result.derivative = -derivative;
  return result;
}

KlTerm kl_estimate(KlEstimator estimator, double logprob, double reference) {
  const double difference = logprob - reference;
  switch (estimator) {
    case KlEstimator::K1: return {difference, 1};
    case KlEstimator::K2: return {0.5 * difference * difference, difference};
    case KlEstimator::K3: {
      const double ratio = std::exp(-difference);
      return {ratio + difference - 1, 1 - ratio};
    }
  }
  return {};
}

}  // namespace foretoken
