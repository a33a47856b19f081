#pragma once

#include <array>
#include <cstdint>

namespace foretoken {

/// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): four random words from a
/// counter and a key, without state, so a draw depends on what it is for and on nothing drawn before.
constexpr std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = std::uint64_t{0xD2511F53u} * counter[0];
    const std::uint64_t product1 = std::uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<std::uint32_t>(product1 >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(product1),
               static_cast<std::uint32_t>(product0 >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(product0)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

/// What a draw is for; part of the counter, so that uses never share numbers.
enum class RandomUse : std::uint32_t { Sampling = 1, Initialisation = 2, StochasticRounding = 3 };

/// Four words for (seed, use, stream, index): `stream` is a rollout or a tensor, `index` a position or an element.
constexpr std::array<std::uint32_t, 4> random_words(std::uint64_t seed, RandomUse use, std::uint32_t stream, std::uint64_t index) {
  return philox({static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32), stream, static_cast<std::uint32_t>(use)},
                {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
}

/// A float in [0, 1) with 24 random bits.
constexpr float uniform_float(std::uint32_t word) { return static_cast<float>(word >> 8) * 0x1p-24f; }

/// A double in (0, 1) with 52 random bits; never 0 or 1 (one bit more would round the largest to 1), so its logarithm
/// is finite and negative.
constexpr double uniform_double(std::uint32_t high, std::uint32_t low) {
  const std::uint64_t bits = ((std::uint64_t{high} << 32) | low) >> 12;
  return (static_cast<double>(bits) + 0.5) * 0x1p-52;
}

}  // namespace foretoken
