#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "backend/cuda/device/grid.h"

// The language of our kernels: what nvcc turns into CUDA and g++ into plain functions for the emulator. A kernel uses
// these names, arithmetic and pointers, and nothing else; README.md beside this folder has an example.

#ifdef __CUDACC__

#define FORETOKEN_KERNEL __global__
#define FORETOKEN_DEVICE __device__ __forceinline__
#define FORETOKEN_EITHER __host__ __device__ __forceinline__  // also for the code that launches
#define FORETOKEN_SHARED __shared__
#define FORETOKEN_BOUNDS(...) __launch_bounds__(__VA_ARGS__)  // threads of a block, and blocks that shall fit a multiprocessor

namespace foretoken::cuda {

FORETOKEN_DEVICE int thread_index() { return static_cast<int>(threadIdx.x); }
FORETOKEN_DEVICE int block_threads() { return static_cast<int>(blockDim.x); }
FORETOKEN_DEVICE std::int64_t block_index() { return blockIdx.x; }
FORETOKEN_DEVICE std::int64_t grid_blocks() { return gridDim.x; }
FORETOKEN_DEVICE int band_index() { return static_cast<int>(blockIdx.y); }

FORETOKEN_DEVICE void sync_block() { __syncthreads(); }
FORETOKEN_DEVICE void sync_warp() { __syncwarp(); }

template <typename T> FORETOKEN_DEVICE T shuffle_xor(T value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }
template <typename T> FORETOKEN_DEVICE T shuffle(T value, int lane) { return __shfl_sync(0xffffffffu, value, lane); }
/// The value of the lane `distance` below; of the lane itself where there is none.
template <typename T> FORETOKEN_DEVICE T shuffle_up(T value, int distance) { return __shfl_up_sync(0xffffffffu, value, distance); }
FORETOKEN_DEVICE std::uint32_t ballot(bool vote) { return __ballot_sync(0xffffffffu, vote); }

/// Dynamic shared memory, aligned to 128 bytes; its contents are undefined at first.
template <typename T> FORETOKEN_DEVICE T* shared_memory() {
  extern __shared__ __align__(128) unsigned char foretoken_shared_memory[];
  return reinterpret_cast<T*>(foretoken_shared_memory);
}

FORETOKEN_DEVICE void atomic_add(std::uint32_t* sum, std::uint32_t value) { atomicAdd(sum, value); }
/// As two 32-bit additions and a carry: shared memory adds those itself, where 64 bits take a loop of compare-and-swap,
/// in which threads that meet wait for each other. So nobody may read the sum while others add.
FORETOKEN_DEVICE void atomic_add(std::uint64_t* sum, std::uint64_t value) {
  std::uint32_t* words = reinterpret_cast<std::uint32_t*>(sum);
  const std::uint32_t low = static_cast<std::uint32_t>(value), before = atomicAdd(words, low);
  const std::uint32_t high = static_cast<std::uint32_t>(value >> 32) + (before + low < low ? 1u : 0u);
  if (high != 0) atomicAdd(words + 1, high);
}
FORETOKEN_DEVICE void atomic_or(std::uint32_t* bits, std::uint32_t value) { atomicOr(bits, value); }
FORETOKEN_DEVICE void atomic_min(std::int32_t* least, std::int32_t value) { atomicMin(least, value); }
FORETOKEN_DEVICE void atomic_max(std::int32_t* greatest, std::int32_t value) { atomicMax(greatest, value); }

FORETOKEN_DEVICE float float_of_bits(std::uint32_t bits) { return __uint_as_float(bits); }
FORETOKEN_DEVICE std::uint32_t bits_of_float(float value) { return __float_as_uint(value); }
FORETOKEN_DEVICE int count_bits(std::uint32_t bits) { return __popc(bits); }
FORETOKEN_DEVICE int lowest_bit(std::uint32_t bits) { return __ffs(static_cast<int>(bits)) - 1; }  // −1 for none

}  // namespace foretoken::cuda

#else

#include <bit>

#include "backend/cuda/device/emulator.h"

#define FORETOKEN_KERNEL
#define FORETOKEN_DEVICE inline
#define FORETOKEN_EITHER inline
#define FORETOKEN_SHARED static thread_local
#define FORETOKEN_BOUNDS(...)

namespace foretoken::cuda {

inline int thread_index() { return here.thread; }
inline int block_threads() { return here.threads; }
inline std::int64_t block_index() { return here.block; }
inline std::int64_t grid_blocks() { return here.blocks; }
inline int band_index() { return here.band; }

inline void sync_block() { Emulator::sync_block(); }
inline void sync_warp() { const char none = 0; Emulator::exchange(0, &none, 1); }

namespace detail {
template <typename T> T from_lane(int kind, T value, int lane) {
  static_assert(sizeof(T) <= Emulator::kSlot);
  std::memcpy(&value, Emulator::exchange(kind, &value, sizeof(T)) + static_cast<std::size_t>(lane) * Emulator::kSlot, sizeof(T));
  return value;
}
}  // namespace detail

template <typename T> T shuffle_xor(T value, int mask) { return detail::from_lane(1, value, (here.thread & 31) ^ mask); }
template <typename T> T shuffle(T value, int lane) { return detail::from_lane(2, value, lane & 31); }
template <typename T> T shuffle_up(T value, int distance) {
  const int lane = here.thread & 31;
  return detail::from_lane(3, value, lane < distance ? lane : lane - distance);
}
inline std::uint32_t ballot(bool vote) {
  const std::byte* votes = Emulator::exchange(4, &vote, 1);
  std::uint32_t bits = 0;
  for (int lane = 0; lane < kWarp; ++lane) bits |= static_cast<std::uint32_t>(votes[lane * Emulator::kSlot]) << lane;
  return bits;
}

template <typename T> T* shared_memory() { return reinterpret_cast<T*>(here.shared); }

inline void atomic_add(std::uint32_t* sum, std::uint32_t value) { *sum += value; }
inline void atomic_add(std::uint64_t* sum, std::uint64_t value) { *sum += value; }
inline void atomic_or(std::uint32_t* bits, std::uint32_t value) { *bits |= value; }
inline void atomic_min(std::int32_t* least, std::int32_t value) { *least = value < *least ? value : *least; }
inline void atomic_max(std::int32_t* greatest, std::int32_t value) { *greatest = value > *greatest ? value : *greatest; }

inline float float_of_bits(std::uint32_t bits) { return std::bit_cast<float>(bits); }
inline std::uint32_t bits_of_float(float value) { return std::bit_cast<std::uint32_t>(value); }
inline int count_bits(std::uint32_t bits) { return std::popcount(bits); }
inline int lowest_bit(std::uint32_t bits) { return bits ? std::countr_zero(bits) : -1; }

}  // namespace foretoken::cuda

#endif

namespace foretoken::cuda {

FORETOKEN_DEVICE int lane_index() { return thread_index() % kWarp; }
FORETOKEN_DEVICE int warp_index() { return thread_index() / kWarp; }
FORETOKEN_DEVICE int block_warps() { return block_threads() / kWarp; }
/// Of all threads in the band.
FORETOKEN_DEVICE std::int64_t global_index() { return block_index() * block_threads() + thread_index(); }
FORETOKEN_DEVICE std::int64_t global_threads() { return grid_blocks() * block_threads(); }

template <typename T> FORETOKEN_EITHER T min_of(T a, T b) { return b < a ? b : a; }
template <typename T> FORETOKEN_EITHER T max_of(T a, T b) { return a < b ? b : a; }

}  // namespace foretoken::cuda
