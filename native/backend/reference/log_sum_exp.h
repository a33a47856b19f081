#pragma once

#include <algorithm>
#include <cmath>

#include "backend/reference/element.h"

namespace foretoken::reference {

/// log Σ exp z
inline double log_sum_exp(const Vector& z) {
  const double max = *std::max_element(z.begin(), z.end());
  double sum = 0;
  for (double value : z) sum += std::exp(value - max);
  return max + std::log(sum);
}

/// Row n of logits times the inverse temperature.
inline Vector tempered_row(const View& logits, std::int64_t n, double inverse_temperature) {
  Vector z = get_row(logits, n);
  for (double& value : z) value *= inverse_temperature;
  return z;
}

/// −Σ p log p of p = softmax(z), given lse = log Σ exp z.
inline double entropy_of(const Vector& z, double lse) {
  double entropy = 0;
  for (double value : z) entropy += std::exp(value - lse) * (lse - value);
  return entropy;
}

}  // namespace foretoken::reference
