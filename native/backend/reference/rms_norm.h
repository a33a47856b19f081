#pragma once

#include <cmath>

#include "backend/reference/element.h"

namespace foretoken::reference {

/// rstd = 1 / sqrt(mean(x²) + eps)
inline double reciprocal_rms(const Vector& x, double epsilon) {
  return 1 / std::sqrt(dot(x, x) / static_cast<double>(x.size()) + epsilon);
}

/// dx of y = x · rstd · w. With x̂ = x · rstd and g = dy · w: dx = rstd · (g − x̂ · mean(g · x̂)).
inline Vector rms_norm_input_gradient(const Vector& x, const Vector& weight, double rstd, const Vector& dy) {
  double mean = 0;
  for (std::size_t c = 0; c < x.size(); ++c) mean += dy[c] * weight[c] * x[c] * rstd / static_cast<double>(x.size());
  Vector dx(x.size());
  for (std::size_t c = 0; c < x.size(); ++c) dx[c] = rstd * (dy[c] * weight[c] - x[c] * rstd * mean);
  return dx;
}

}  // namespace foretoken::reference
