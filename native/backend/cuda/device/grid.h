#pragma once

#include <cstddef>
#include <cstdint>

namespace foretoken::cuda {

/// How a kernel is launched. Threads are a multiple of 32, so that every warp is whole.
struct Grid {
  std::int64_t blocks = 0;       // no block: nothing is launched
  int threads = 0;               // per block
  std::size_t shared_bytes = 0;  // dynamic shared memory
  int bands = 1;                 // the grid's second dimension, at most 65535
};

inline constexpr int kWarp = 32;
inline constexpr int kMaxThreads = 1024;

}  // namespace foretoken::cuda
