#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>

#include "backend/backend.h"
#include "core/dtype.h"
#include "core/philox.h"

namespace foretoken {

/// The key of an update's random words.
inline std::uint64_t rounding_key(const AdamW& options) {
  return options.rounding_seed + static_cast<std::uint64_t>(options.step) * 0x9E3779B97F4A7C15u;
}

/// Random words of one element of one parameter in one AdamW update: [0] rounds the master, [1] m, [2] v.
inline std::array<std::uint32_t, 4> rounding_words(const AdamW& options, std::int64_t element) {
  return random_words(rounding_key(options), RandomUse::StochasticRounding, options.rounding_stream,
                      static_cast<std::uint64_t>(element));
}

/// One of the two bfloat16 neighbours of `value`, the nearer the likelier, so that the expectation is `value` itself.
inline BFloat16 round_stochastically(float value, std::uint32_t word) {
  if (!std::isfinite(value)) return BFloat16(value);
  BFloat16 result;
  result.bits = static_cast<std::uint16_t>((std::bit_cast<std::uint32_t>(value) + (word & 0xffffu)) >> 16);
  return result;
}

}  // namespace foretoken
