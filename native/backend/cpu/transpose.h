#pragma once

// Squares of words in registers, rows becoming columns. Like what includes it, compiled for several instruction sets.

#include <stdint.h>

#define FORETOKEN_INLINE inline __attribute__((always_inline))

namespace foretoken::cpu {
namespace {

/// Words of 32 bits in a vector.
template <typename Words>
constexpr int kWordsOf = static_cast<int>(sizeof(Words) / 4);

/// The elements of two vectors side by side that `mask` names.
template <typename Words>
FORETOKEN_INLINE Words shuffle(Words a, Words b, Words mask) {
#if defined(__clang__)
  Words result;
#pragma unroll
  for (int lane = 0; lane < kWordsOf<Words>; ++lane) {
    result[lane] = mask[lane] < kWordsOf<Words> ? a[mask[lane]] : b[mask[lane] - kWordsOf<Words>];
  }
  return result;
#else
  return __builtin_shuffle(a, b, mask);
#endif
}

/// Masks: every second element from `first` on; or elements from `first` on of each vector in turns.
template <typename Words>
FORETOKEN_INLINE Words every_second(int first) {
  Words mask;
#pragma GCC unroll 16
  for (int lane = 0; lane < kWordsOf<Words>; ++lane) mask[lane] = static_cast<uint32_t>(first + 2 * lane);
  return mask;
}
template <typename Words>
FORETOKEN_INLINE Words in_turns(int first) {
  Words mask;
#pragma GCC unroll 16
  for (int lane = 0; lane < kWordsOf<Words>; ++lane) {
    mask[lane] = static_cast<uint32_t>(first + lane / 2 + lane % 2 * kWordsOf<Words>);
  }
  return mask;
}

/// Rows become columns. Each round puts a row beside the one half the square away: log₂(lanes) rounds do it.
template <typename Words>
FORETOKEN_INLINE void transpose_square(Words* square) {
  constexpr int lanes = kWordsOf<Words>;
#pragma GCC unroll 4
  for (int round = 1; round < lanes; round *= 2) {
    Words next[lanes];
#pragma GCC unroll 8
    for (int c = 0; c < lanes / 2; ++c) {
      next[2 * c] = shuffle(square[c], square[c + lanes / 2], in_turns<Words>(0));
      next[2 * c + 1] = shuffle(square[c], square[c + lanes / 2], in_turns<Words>(lanes / 2));
    }
#pragma GCC unroll 16
    for (int c = 0; c < lanes; ++c) square[c] = next[c];
  }
}

}  // namespace
}  // namespace foretoken::cpu
