#include <cmath>

#include "backend/clip_scale.h"
#include "backend/reference/reference_backend.h"
#include "backend/stochastic_rounding.h"

namespace foretoken {

using namespace reference;

namespace {

/// Stored bfloat16 is rounded by chance, everything else to nearest.
void store(View x, std::int64_t row, std::int64_t col, double value, std::uint32_t word) {
  if (x.dtype == DType::BFloat16) x.row<BFloat16>(row)[col] = round_stochastically(static_cast<float>(value), word);
  else set(x, row, col, value);
}

}  // namespace

void ReferenceBackend::sum_squares(View x, double* sum) {
  *sum = 0;
  for (std::int64_t n = 0; n < x.rows; ++n)
    for (std::int64_t c = 0; c < x.cols; ++c) *sum += get(x, n, c) * get(x, n, c);
}

void ReferenceBackend::clip_norm(const double* squares, std::int64_t count, double max_norm, double* scale) {
  double sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum += squares[i];
  *scale = clip_scale(std::sqrt(sum), max_norm);
}

// g = gradient · gradient_scale, m = β₁ m + (1 − β₁) g, v = β₂ v + (1 − β₂) g²,
// master -= lr · (m / (1 − β₁ᵗ) / (sqrt(v / (1 − β₂ᵗ)) + ε) + weight_decay · master)
void ReferenceBackend::adamw(View master, View m, View v, View gradient, const AdamW& options) {
  const double scale = options.gradient_scale ? *options.gradient_scale : 1;
  if (std::isnan(scale)) return;
  const double correction1 = 1 - std::pow(options.beta1, static_cast<double>(options.step));
  const double correction2 = 1 - std::pow(options.beta2, static_cast<double>(options.step));
  for (std::int64_t n = 0; n < master.rows; ++n)
    for (std::int64_t c = 0; c < master.cols; ++c) {
      const double g = get(gradient, n, c) * scale, old = get(master, n, c);
      const double first = options.beta1 * get(m, n, c) + (1 - options.beta1) * g;
      const double second = options.beta2 * get(v, n, c) + (1 - options.beta2) * g * g;
      const double update = first / correction1 / (std::sqrt(second / correction2) + options.epsilon);
      const auto words = rounding_words(options, n * master.cols + c);
      store(master, n, c, old - options.learning_rate * (update + options.weight_decay * old), words[0]);
      store(m, n, c, first, words[1]);
      store(v, n, c, second, words[2]);
    }
}

void ReferenceBackend::average(View average, View x, double tau) {
  for (std::int64_t n = 0; n < x.rows; ++n)
    for (std::int64_t c = 0; c < x.cols; ++c) set(average, n, c, tau * get(average, n, c) + (1 - tau) * get(x, n, c));
}

}  // namespace foretoken
