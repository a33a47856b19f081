#pragma once

#include <type_traits>

#include "backend/cuda/device/chunk.h"

#ifndef __CUDACC__
#include <vector>
#endif

// Copies from global to shared memory that go on while the thread computes (cp.async, sm_80 and up). A thread closes a
// group of copies with commit_copies; wait_copies<n> waits until at most its n latest groups are under way, after which
// sync_block shows the copies to the block. On the host a copy happens in wait_copies; until then its target holds NaNs.
namespace foretoken::cuda {

/// Elements in 16 bytes, what one copy moves.
template <typename T>
inline constexpr int kWordElements = 16 / static_cast<int>(sizeof(T));

#ifndef __CUDACC__
namespace detail {
struct Copy {
  void* to;
  const void* from;
  int bytes;
};
struct Copies {
  std::vector<Copy> copies;
  std::vector<std::size_t> ends;  // of the groups
};
inline thread_local Copies copies[kMaxThreads];
}  // namespace detail
#endif

/// 16 bytes at `to` become `bytes` bytes from `from` and then zeros; both are aligned to 16.
FORETOKEN_DEVICE void copy_word(void* to, const void* from, int bytes) {
#ifdef __CUDACC__
#ifdef __CUDA_ARCH__
  const unsigned target = static_cast<unsigned>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(target), "l"(from), "r"(bytes) : "memory");
#endif
#else
  std::memset(to, 0xff, 16);
  detail::copies[here.thread].copies.push_back({to, from, bytes});
#endif
}

FORETOKEN_DEVICE void commit_copies() {
#ifdef __CUDACC__
#ifdef __CUDA_ARCH__
  asm volatile("cp.async.commit_group;\n" ::: "memory");
#endif
#else
  detail::Copies& mine = detail::copies[here.thread];
  mine.ends.push_back(mine.copies.size());
#endif
}

template <int Latest>
FORETOKEN_DEVICE void wait_copies() {
#ifdef __CUDACC__
#ifdef __CUDA_ARCH__
  asm volatile("cp.async.wait_group %0;\n" ::"n"(Latest) : "memory");
#endif
#else
  auto& [pending, ends] = detail::copies[here.thread];
  if (ends.size() <= Latest) return;
  const std::size_t done = ends[ends.size() - Latest - 1];
  for (std::size_t i = 0; i < done; ++i) {
    std::memset(pending[i].to, 0, 16);
    if (pending[i].bytes > 0) std::memcpy(pending[i].to, pending[i].from, static_cast<std::size_t>(pending[i].bytes));
  }
  pending.erase(pending.begin(), pending.begin() + static_cast<std::ptrdiff_t>(done));
  ends.erase(ends.begin(), ends.end() - Latest);
  for (std::size_t& end : ends) end -= done;
#endif
}

/// A word of a row in shared memory becomes elements [column, column + a word) of `row`, zeros beyond its `columns` and
/// everywhere if it is not `there`. Aligned rows are copied asynchronously, others by the thread itself.
template <typename T>
FORETOKEN_DEVICE void copy_row_word(T* to, const T* row, int column, int columns, bool there, bool aligned) {
  constexpr int word = kWordElements<T>;
  const int count = there ? min_of(max_of(columns - column, 0), word) : 0;
  if (aligned) {
    copy_word(to, count > 0 ? row + column : row, count * static_cast<int>(sizeof(T)));
  } else {
#pragma unroll
    for (int i = 0; i < word; ++i) to[i] = i < count ? row[column + i] : T();
  }
}

}  // namespace foretoken::cuda
