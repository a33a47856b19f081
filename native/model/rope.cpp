#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace foretoken {

namespace {

/// theta^(2i / D) in float32, each operation rounded as torch does: exponent, then power.
std::vector<float> base_powers(double theta, std::int64_t D) {
  std::vector<float> powers(static_cast<std::size_t>(D / 2));
  const float base = static_cast<float>(theta);
  for (std::size_t i = 0; i < powers.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(D);
    powers[i] = static_cast<float>(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  return powers;
}

std::vector<float> inverse_powers(double theta, std::int64_t D) {
  std::vector<float> inverse = base_powers(theta, D);
  for (float& x : inverse) x = 1.0f / x;
  return inverse;
}

/// "NTK-aware" base, grown so that the lowest frequency spans `length` (transformers:
/// `_compute_dynamic_ntk_parameters`).
double dynamic_theta(const ModelConfig& config, std::int64_t max_length) {
  const double D = static_cast<double>(config.head_dim), factor = config.rope.factor;
  const double original = static_cast<double>(config.max_position_embeddings);
  const double length = std::max(static_cast<double>(max_length), original);
  return config.rope.theta * std::pow(factor * length / original - (factor - 1.0), D / (D - 2.0));
}

/// Llama 3.1: long waves are stretched by `factor`, short ones stay, those between are blended.
std::vector<float> llama3_inverse(const RopeConfig& rope, std::int64_t D) {
  const float original = static_cast<float>(rope.original_max_position_embeddings);
  const float longest_kept = static_cast<float>(rope.original_max_position_embeddings / rope.high_freq_factor);
  const float shortest_stretched = static_cast<float>(rope.original_max_position_embeddings / rope.low_freq_factor);
  const float factor = static_cast<float>(rope.factor), low = static_cast<float>(rope.low_freq_factor);
  const float span = static_cast<float>(rope.high_freq_factor - rope.low_freq_factor);
  const float turn = static_cast<float>(2.0 * std::numbers::pi);

  std::vector<float> inverse = inverse_powers(rope.theta, D);
  for (float& x : inverse) {
    const float wavelength = turn / x;
    if (wavelength > shortest_stretched) {
      x = x / factor;
    } else if (wavelength >= longest_kept) {
      const float smooth = (original / wavelength - low) / span;
      x = (1.0f - smooth) * x / factor + smooth * x;
    }
  }
  return inverse;
}

/// YaRN (arXiv 2309.00071): frequencies that turn more than beta_fast times within the original context stay, those
/// that turn fewer than beta_slow times are divided by `factor`, a linear ramp over the dimensions lies between.
std::vector<float> yarn_inverse(const RopeConfig& rope, std::int64_t D) {
  const double original = static_cast<double>(rope.original_max_position_embeddings);
  const auto dimension_of = [&](double turns) {
    return static_cast<double>(D) * std::log(original / (turns * 2.0 * std::numbers::pi)) /
           (2.0 * std::log(rope.theta));
  };
  double low = dimension_of(rope.beta_fast), high = dimension_of(rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(D - 1));
  if (low == high) high += 0.001;  // as the authors do, against a division by zero

  std::vector<float> inverse = base_powers(rope.theta, D);
  const float start = static_cast<float>(low), span = static_cast<float>(high - low);
  const float factor = static_cast<float>(rope.factor);
  for (std::size_t i = 0; i < inverse.size(); ++i) {
    const float power = inverse[i];
    const float extrapolated = 1.0f / power, interpolated = 1.0f / (factor * power);
    const float kept = 1.0f - std::clamp((static_cast<float>(i) - start) / span, 0.0f, 1.0f);
    inverse[i] = interpolated * (1.0f - kept) + extrapolated * kept;
  }
  return inverse;
}

float yarn_attention_scaling(const RopeConfig& rope) {
  const auto scale = [&](double mscale) {
    return rope.factor <= 1.0 ? 1.0 : 0.1 * mscale * std::log(rope.factor) + 1.0;
  };
  if (rope.attention_factor) return static_cast<float>(*rope.attention_factor);
  if (rope.mscale.value_or(0.0) != 0.0 && rope.mscale_all_dim.value_or(0.0) != 0.0) {
    return static_cast<float>(scale(*rope.mscale) / scale(*rope.mscale_all_dim));
  }
  return static_cast<float>(scale(1.0));
}

}  // namespace

RopeFrequencies rope_frequencies(const ModelConfig& config, std::int64_t max_length) {
  const RopeConfig& rope = config.rope;
  const std::int64_t D = config.head_dim;
  switch (rope.type) {
    case RopeType::Default: return {inverse_powers(rope.theta, D)};
    case RopeType::Linear: {
      std::vector<float> inverse = inverse_powers(rope.theta, D);
      for (float& x : inverse) x /= static_cast<float>(rope.factor);
      return {std::move(inverse)};
    }
    case RopeType::Dynamic: return {inverse_powers(dynamic_theta(config, max_length), D)};
    case RopeType::Llama3: return {llama3_inverse(rope, D)};
    case RopeType::Yarn: return {yarn_inverse(rope, D), yarn_attention_scaling(rope)};
  }
  return {};
}

void fill_rope_table(const RopeFrequencies& frequencies, std::int64_t T, float* table) {
  const std::vector<float>& inverse = frequencies.inverse;  // (D/2)
  const std::size_t half = inverse.size();
  for (std::int64_t p = 0; p < T; ++p) {
    float* cos_row = table + static_cast<std::size_t>(p) * 2 * half;  // (D/2)
    float* sin_row = cos_row + half;                                  // (D/2)
    for (std::size_t i = 0; i < half; ++i) {
      const float angle = static_cast<float>(p) * inverse[i];
      cos_row[i] = static_cast<float>(std::cos(static_cast<double>(angle))) * frequencies.attention_scaling;
      sin_row[i] = static_cast<float>(std::sin(static_cast<double>(angle))) * frequencies.attention_scaling;
    }
  }
}

}  // namespace foretoken
