#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "backend/backend.h"

namespace foretoken {

/// Where the device writes the tokens that it draws, and their log-probs. Two halves take turns, so that one is read while
/// the other is written; which one a row's draw goes to is said by its offset, so the addresses never change.
class SampledTokens {
 public:
  /// Halves of `rows` places.
  SampledTokens(Backend& backend, std::int64_t rows)
      : backend_(backend), rows_(rows), tokens_(backend, static_cast<std::size_t>(2 * rows) * sizeof(std::int32_t)),
        logprobs_(backend, static_cast<std::size_t>(2 * rows) * size_of(backend.accumulation_dtype())) {}

  std::int32_t* tokens() const { return static_cast<std::int32_t*>(tokens_.data()); }
  View logprobs() const { return View(logprobs_.data(), backend_.accumulation_dtype(), 1, 2 * rows_); }
  std::int32_t offset(int half) const { return static_cast<std::int32_t>(half * rows_); }

  /// The device has been told to draw the first `count` of a half.
  void start_download(int half, std::int64_t count) {
    backend_.start_download(tokens() + offset(half), static_cast<std::size_t>(count) * sizeof(std::int32_t));
    const View values = logprobs().slice_cols(offset(half), count);
    backend_.start_download(values.data, static_cast<std::size_t>(count) * size_of(values.dtype));
  }

  struct OnHost {
    std::vector<std::int32_t> tokens;
    std::vector<float> logprobs;
  };
  /// Waits until they have been drawn, and no longer where their download was started.
  OnHost fetch(int half, std::int64_t count) {
    const auto size = static_cast<std::size_t>(count);
    OnHost drawn{std::vector<std::int32_t>(size), std::vector<float>(size)};
    backend_.download(drawn.tokens.data(), tokens() + offset(half), size * sizeof(std::int32_t));
    const View values = logprobs().slice_cols(offset(half), count);
    if (values.dtype == DType::Float64) {
      std::vector<double> wide(size);
      backend_.download(wide.data(), values.data, size * sizeof(double));
      std::transform(wide.begin(), wide.end(), drawn.logprobs.begin(), [](double value) { return static_cast<float>(value); });
    } else {
      backend_.download(drawn.logprobs.data(), values.data, size * sizeof(float));
    }
    return drawn;
  }

 private:
  Backend& backend_;
  std::int64_t rows_;
  Buffer tokens_, logprobs_;
};

}  // namespace foretoken
