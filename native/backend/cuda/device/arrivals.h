#pragma once

#include "backend/cuda/device/portable.h"

// A barrier of warps in two halves (mbarrier): a warp arrives where it no longer needs what others wait for, and goes on; it
// waits only where it needs what the others have done. Rounds follow each other on the same barrier, and a warp arrives
// for a round only after it has waited for the one before.
namespace foretoken::cuda {

/// Lies in shared memory.
struct Arrivals {
  std::uint64_t state;
};

/// By one thread, before a sync_block. A round is complete when so many warps have arrived.
FORETOKEN_DEVICE void begin_arrivals(Arrivals* arrivals, int warps) {
#ifdef __CUDACC__
#ifdef __CUDA_ARCH__
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(arrivals));
  asm volatile("mbarrier.init.shared.b64 [%0], %1;\n" ::"r"(address), "r"(warps) : "memory");
#endif
#else
  // The emulated state: rounds completed, how many warps a round needs, how many are missing.
  arrivals->state = static_cast<std::uint64_t>(warps) << 16 | static_cast<std::uint64_t>(warps);
#endif
}

/// The same, but known only once x, which is not negative, has been computed. ptxas puts off work on registers past the
/// instructions that wait for tensor cores, but not what these may touch in memory: work that x depends on is done before
/// an arrival there.
FORETOKEN_DEVICE Arrivals* known_after(Arrivals* arrivals, float x) { return arrivals + (bits_of_float(x) >> 31); }

/// By all lanes. What the warp did before is seen by those who wait for the round.
FORETOKEN_DEVICE void arrive(Arrivals* arrivals) {
  sync_warp();
  if (lane_index() > 0) return;
#ifdef __CUDACC__
#ifdef __CUDA_ARCH__
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(arrivals));
  asm volatile("{\n.reg .b64 state;\nmbarrier.arrive.shared.b64 state, [%0];\n}\n" ::"r"(address) : "memory");
#endif
#else
  std::uint64_t& state = arrivals->state;
  state -= 1;
  if ((state & 0xffff) == 0) state += (std::uint64_t{1} << 32) + (state >> 16 & 0xffff);
#endif
}

/// Until round `round` is complete, counting from 0.
FORETOKEN_DEVICE void wait_arrivals(const Arrivals* arrivals, int round) {
#ifdef __CUDACC__
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(arrivals));
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}\n" ::"r"(address), "r"(round & 1) : "memory");
#endif
#else
  Emulator::wait_until([&] { return (arrivals->state >> 32 & 1) != static_cast<std::uint64_t>(round & 1); });
#endif
}

}  // namespace foretoken::cuda
