#pragma once

#include "backend/cuda/device/reduce.h"

// Selection among a row's elements by one block. Masses are integers, so that sums are exact and atomics leave no trace
// of their order.
namespace foretoken::cuda {

/// A number that orders as the value does; −0 and +0 are the same.
FORETOKEN_DEVICE std::uint32_t order_key(float value) {
  const std::uint32_t bits = bits_of_float(value + 0.0f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/// What `select` finds: elements with greater keys all belong, and equals as long as their masses do not reach `missing`.
struct Selection {
  std::uint32_t key;
  std::uint64_t missing;  // at least 1
};

/// In order of falling keys, the shortest beginning whose masses reach `wanted` (between 1 and their sum). Eight bits of
/// the key in each of four rounds.
template <typename KeyOf, typename MassOf>
FORETOKEN_DEVICE Selection select(std::int64_t count, std::uint64_t wanted, const KeyOf& key_of, const MassOf& mass_of) {
  constexpr int bins_count = 256;
  constexpr int ahead = 4;  // keys that are read before the first of them is counted: no read passes an atomic addition
  FORETOKEN_SHARED std::uint64_t bins[bins_count];
  FORETOKEN_SHARED Selection chosen;
  std::uint32_t prefix = 0, mask = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (int bin = thread_index(); bin < bins_count; bin += block_threads()) bins[bin] = 0;
    sync_block();
    for (std::int64_t begin = thread_index(); begin < count; begin += ahead * block_threads()) {
      std::uint32_t keys[ahead];
#pragma unroll
      for (int j = 0; j < ahead; ++j) {
        const std::int64_t i = begin + j * block_threads();
        keys[j] = i < count ? key_of(i) : 0;
      }
#pragma unroll
      for (int j = 0; j < ahead; ++j) {
        const std::int64_t i = begin + j * block_threads();
        const std::uint64_t mass = i < count && (keys[j] & mask) == prefix ? mass_of(i) : 0;
        if (mass > 0) atomic_add(&bins[keys[j] >> shift & 255], mass);
      }
    }
    sync_block();
    if (thread_index() == 0) {
      int bin = bins_count - 1;
      for (; bin > 0 && bins[bin] < wanted; --bin) wanted -= bins[bin];
      chosen = {static_cast<std::uint32_t>(bin), wanted};
    }
    sync_block();
    prefix |= chosen.key << shift;
    wanted = chosen.missing;
    mask |= 255u << shift;
  }
  return {prefix, wanted};
}

/// The first i at which mass_of(0) + … + mass_of(i) reaches wanted_of(the sum of all masses), at least 1; −1 if it never
/// does. The range is cut into a piece for each warp, twice; a warp walks through the last.
template <typename WantedOf, typename MassOf>
FORETOKEN_DEVICE std::int64_t first_reaching(std::int64_t count, const WantedOf& wanted_of, const MassOf& mass_of) {
  FORETOKEN_SHARED std::uint64_t masses[kMaxThreads / kWarp];
  FORETOKEN_SHARED std::int64_t found;
  std::int64_t begin = 0, end = count;
  std::uint64_t wanted = 0;
  for (int level = 0; level < 2; ++level) {
    const std::int64_t per_warp = (end - begin + block_warps() - 1) / block_warps();
    const std::int64_t first = begin + warp_index() * per_warp, last = min_of(end, first + per_warp);
    std::uint64_t mass = 0;
    for (std::int64_t i = first + lane_index(); i < last; i += kWarp) mass += mass_of(i);
    mass = sum_warp(mass);
    sync_block();  // nobody reads the masses of the level before any more
    if (lane_index() == 0) masses[warp_index()] = mass;
    sync_block();
    if (level == 0) {
      std::uint64_t total = 0;
      for (int w = 0; w < block_warps(); ++w) total += masses[w];
      wanted = wanted_of(total);
    }
    int piece = 0;
    for (; piece < block_warps() && masses[piece] < wanted; ++piece) wanted -= masses[piece];
    if (piece == block_warps()) return -1;
    begin = begin + piece * per_warp;
    end = min_of(end, begin + per_warp);
  }
  if (warp_index() == 0) {
    std::uint64_t sum = 0;
    for (std::int64_t base = begin; base < end && sum < wanted; base += kWarp) {
      const std::int64_t i = base + lane_index();
      std::uint64_t running = i < end ? mass_of(i) : 0;
#pragma unroll
      for (int distance = 1; distance < kWarp; distance *= 2) {
        const std::uint64_t below = shuffle_up(running, distance);
        if (lane_index() >= distance) running += below;
      }
      running += sum;
      const std::uint32_t reached = ballot(running >= wanted);
      if (reached && lane_index() == 0) found = base + lowest_bit(reached);
      sum = shuffle(running, kWarp - 1);
    }
  }
  sync_block();
  const std::int64_t result = found;
  sync_block();  // before anyone writes it again
  return result;
}

}  // namespace foretoken::cuda
