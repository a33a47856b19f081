#pragma once

#include "backend/cuda/device/portable.h"

// Reductions over warps and blocks by fixed trees: butterflies within a warp, then warp after warp. All threads get the
// result. Every thread of the block (of the warp) must take part.
namespace foretoken::cuda {

struct Add {
  template <typename T> FORETOKEN_DEVICE T operator()(T a, T b) const { return a + b; }
};
/// NaN if either is: nothing that is not a number hides behind a comparison.
struct Greatest {
  FORETOKEN_DEVICE float operator()(float a, float b) const { return a > b || a != a ? a : b; }
};

template <typename T, typename Operation>
FORETOKEN_DEVICE T reduce_warp(T value, Operation operation) {
#pragma unroll
  for (int mask = kWarp / 2; mask > 0; mask /= 2) value = operation(value, shuffle_xor(value, mask));
  return value;
}

template <typename T, typename Operation>
FORETOKEN_DEVICE T reduce_block(T value, Operation operation) {
  FORETOKEN_SHARED T parts[kMaxThreads / kWarp];
  value = reduce_warp(value, operation);
  if (block_threads() == kWarp) return value;
  if (lane_index() == 0) parts[warp_index()] = value;
  sync_block();
  value = parts[0];
  for (int w = 1; w < block_warps(); ++w) value = operation(value, parts[w]);
  sync_block();  // before anyone writes parts again
  return value;
}

template <typename T> FORETOKEN_DEVICE T sum_warp(T value) { return reduce_warp(value, Add()); }
template <typename T> FORETOKEN_DEVICE T sum_block(T value) { return reduce_block(value, Add()); }

}  // namespace foretoken::cuda
