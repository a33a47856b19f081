#pragma once

#ifdef __CUDACC__
#include "backend/cuda/device/mma.h"
#else
#include "backend/cuda/device/emulated_wgmma.h"
#endif

// Products of bfloat16 matrices by a warpgroup, four warps together (wgmma.mma_async m64nNk16, sm_90a alone). They are
// asynchronous: fence_products, then products, then commit_products, and results and operands may be touched again only
// after wait_products. Kernels with them are compiled for sm_90a and the host; elsewhere kWarpgroupProducts is false.
//
// A warpgroup holds results as its warps hold strips of 16 rows (mma.h): warp w has rows 16 w … 16 w + 15, and
// c[8 p + 4 t + i] is [p][0][t][i] of its strip. A left operand from registers is a Factor per warp.
//
// Operands in shared memory are rows of 64 numbers, 128 bytes, whose words of 16 bytes change places within the row
// (operand_element), so that neither the copies nor the tensor cores meet bank conflicts. Wider matrices are several such
// blocks one after the other. Each block begins on 1024 bytes.
//
// Order of sums: over k upwards, 16 at a time, as in mma.h; an element depends on its row of A and its column of B alone.
// The body for the host adds up one at a time. It takes operands from where the descriptor says they are; results are
// NaNs until they are waited for, and an operand that changes meanwhile is an error.
namespace foretoken::cuda {

inline constexpr int kWarpgroup = 128;       // threads
inline constexpr int kWarpgroupRows = 64;    // of a product
inline constexpr int kBlockColumns = 64;     // of an operand in shared memory
inline constexpr int kBlockRowBytes = 128;

#if defined(__CUDA_ARCH__) && !defined(__CUDA_ARCH_FEAT_SM90_ALL)
inline constexpr bool kWarpgroupProducts = false;
#else
inline constexpr bool kWarpgroupProducts = true;
#endif

FORETOKEN_DEVICE int warpgroup_index() { return thread_index() / kWarpgroup; }

/// Where a number lies in an operand of so many rows, a multiple of 8, in elements from its beginning.
FORETOKEN_DEVICE int operand_element(int rows, int row, int column) {
  const int word = column % kBlockColumns / 8;
  return (column / kBlockColumns * rows + row) * kBlockColumns + (word ^ row % 8) * 8 + column % 8;
}

/// Dynamic shared memory aligned for operands.
FORETOKEN_DEVICE BFloat16* operand_memory() {
#ifdef __CUDACC__
  extern __shared__ __align__(1024) unsigned char foretoken_operand_memory[];
  return reinterpret_cast<BFloat16*>(foretoken_operand_memory);
#else
  return shared_memory<BFloat16>();
#endif
}

/// What the hardware wants to know about an operand in shared memory, as far as operands differ; description() has the rest.
///   bits 0–13: the address, in 16 bytes
///   bits 16–29: across, the distance from a block to the next, in 16 bytes; along, unused and 1
/// 32 bits, because sums of 64 would take several instructions for every product.
using Operand = std::uint32_t;

namespace detail {
FORETOKEN_DEVICE Operand operand_at([[maybe_unused]] const BFloat16* start, int blocks_apart) {
#ifdef __CUDACC__
  const std::uint32_t address = shuffle(shared_address(start), 0);  // the compiler then knows it is that of all lanes
#else
  const auto address = static_cast<std::uint32_t>(reinterpret_cast<const std::byte*>(start) - here.shared);
#endif
  return (address >> 4 & 0x3fff) | static_cast<Operand>(blocks_apart >> 4) << 16;
}
/// And with
///   bits 32–45: the distance from eight rows of a block to the next eight, in 16 bytes
///   bits 49–51: 0, as blocks begin on 1024 bytes
///   bits 62–63: the mode of swizzling, 1, for 128 bytes
FORETOKEN_DEVICE std::uint64_t description(Operand operand) {
  return operand | std::uint64_t{8 * kBlockRowBytes / 16} << 32 | std::uint64_t{1} << 62;
}
}  // namespace detail

/// Rows from `start` on, for sums along the rows: A of a · bᵀ, or b.
FORETOKEN_DEVICE Operand operand_along(const BFloat16* start) { return detail::operand_at(start, 16); }
/// Rows from `start` on, for sums over the rows, in blocks of so many rows each: B of a · b.
FORETOKEN_DEVICE Operand operand_across(const BFloat16* start, int rows) {
  return detail::operand_at(start, rows * kBlockRowBytes);
}
/// The operand that begins `bytes` later, a multiple of 16.
FORETOKEN_DEVICE Operand operand_after(Operand operand, int bytes) { return operand + static_cast<Operand>(bytes >> 4); }

#ifdef __CUDACC__

// Of asm operands.
#define FORETOKEN_SUMS_8(c, i)                                                                                      \
  "+f"((c)[i]), "+f"((c)[i + 1]), "+f"((c)[i + 2]), "+f"((c)[i + 3]), "+f"((c)[i + 4]), "+f"((c)[i + 5]), "+f"((c)[i + 6]), \
      "+f"((c)[i + 7])
#define FORETOKEN_SUMS_32(c, i) \
  FORETOKEN_SUMS_8(c, i), FORETOKEN_SUMS_8(c, i + 8), FORETOKEN_SUMS_8(c, i + 16), FORETOKEN_SUMS_8(c, i + 24)
#define FORETOKEN_NAMES_16 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define FORETOKEN_NAMES_32 \
  FORETOKEN_NAMES_16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define FORETOKEN_NAMES_64                                                                                             \
  FORETOKEN_NAMES_32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, " \
  "%51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

/// Before products, once registers they take or give have been written.
FORETOKEN_DEVICE void fence_products() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory");
#endif
}
/// The products since the last call are a group.
FORETOKEN_DEVICE void commit_products() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory");
#endif
}
namespace detail {
/// The compiler reads and writes c as the source says, before or after.
template <int Count>
FORETOKEN_DEVICE void hold([[maybe_unused]] float (&c)[Count]) {
#ifdef __CUDA_ARCH__
#pragma unroll
  for (int i = 0; i < Count; ++i) asm volatile("" : "+f"(c[i])::"memory");
#endif
}
}  // namespace detail
/// Until at most the `Latest` latest groups are under way; c are the sums of those that are not.
template <int Latest, int... Counts>
FORETOKEN_DEVICE void wait_products([[maybe_unused]] float (&... c)[Counts]) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(Latest) : "memory");
  (detail::hold(c), ...);
#endif
}
/// What the thread wrote to shared memory, and what copies it waited for wrote, products see from now on; those of other
/// warps after a barrier.
FORETOKEN_DEVICE void show_to_products() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
#endif
}

// The last numbers of an instruction: neither factor is negated (1, 1); sums go along the rows of an operand (0) or across
// them (1).

/// c (64, 32) or (64, 64) = a (64, 16) · b (32 or 64, 16)ᵀ, or added to c; operands along.
template <bool Add>
FORETOKEN_DEVICE void multiply_operands([[maybe_unused]] float (&c)[16], [[maybe_unused]] Operand a, [[maybe_unused]] Operand b) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  asm volatile(
      "{\n.reg .pred add;\nsetp.ne.b32 add, %18, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {" FORETOKEN_NAMES_16 "}, %16, %17, add, 1, 1, 0, 0;\n}\n"
      : FORETOKEN_SUMS_8(c, 0), FORETOKEN_SUMS_8(c, 8)
      : "l"(detail::description(a)), "l"(detail::description(b)), "n"(Add));
#endif
}
template <bool Add>
FORETOKEN_DEVICE void multiply_operands([[maybe_unused]] float (&c)[32], [[maybe_unused]] Operand a, [[maybe_unused]] Operand b) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  asm volatile(
      "{\n.reg .pred add;\nsetp.ne.b32 add, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" FORETOKEN_NAMES_32 "}, %32, %33, add, 1, 1, 0, 0;\n}\n"
      : FORETOKEN_SUMS_32(c, 0)
      : "l"(detail::description(a)), "l"(detail::description(b)), "n"(Add));
#endif
}
/// c (64, 64) or (64, 128) = a (64, 16) · b (16, 64 or 128), or added to c; b across. a stays where it is until waited for.
template <bool Add>
FORETOKEN_DEVICE void multiply_factor([[maybe_unused]] float (&c)[32], [[maybe_unused]] const Factor<BFloat16>& a,
                                      [[maybe_unused]] Operand b) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  asm volatile(
      "{\n.reg .pred add;\nsetp.ne.b32 add, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" FORETOKEN_NAMES_32
      "}, {%32, %33, %34, %35}, %36, add, 1, 1, 1;\n}\n"
      : FORETOKEN_SUMS_32(c, 0)
      : "r"(a.x[0]), "r"(a.x[1]), "r"(a.x[2]), "r"(a.x[3]), "l"(detail::description(b)), "n"(Add));
#endif
}
template <bool Add>
FORETOKEN_DEVICE void multiply_factor([[maybe_unused]] float (&c)[64], [[maybe_unused]] const Factor<BFloat16>& a,
                                      [[maybe_unused]] Operand b) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  asm volatile(
      "{\n.reg .pred add;\nsetp.ne.b32 add, %69, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" FORETOKEN_NAMES_64
      "}, {%64, %65, %66, %67}, %68, add, 1, 1, 1;\n}\n"
      : FORETOKEN_SUMS_32(c, 0), FORETOKEN_SUMS_32(c, 32)
      : "r"(a.x[0]), "r"(a.x[1]), "r"(a.x[2]), "r"(a.x[3]), "l"(detail::description(b)), "n"(Add));
#endif
}

#undef FORETOKEN_NAMES_64
#undef FORETOKEN_NAMES_32
#undef FORETOKEN_NAMES_16
#undef FORETOKEN_SUMS_32
#undef FORETOKEN_SUMS_8

#else

template <bool Add, int Count>
void multiply_operands(float (&c)[Count], Operand a, Operand b) {
  detail::multiply(c, nullptr, detail::description(a), detail::description(b), false, Add);
}
template <bool Add, int Count>
void multiply_factor(float (&c)[Count], const Factor<BFloat16>& a, Operand b) {
  detail::multiply(c, &a, 0, detail::description(b), true, Add);
}

#endif

}  // namespace foretoken::cuda
