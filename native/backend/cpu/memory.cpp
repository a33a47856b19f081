#include <cstdlib>
#include <cstring>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "backend/cpu/operations.h"
#include "core/error.h"

namespace foretoken::cpu {

void* CpuBackend::allocate(std::size_t bytes) {
  constexpr std::size_t huge_page = std::size_t{2} << 20;
  const std::size_t alignment = bytes >= 2 * huge_page ? huge_page : 64;
  const std::size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  void* data = rounded >= bytes ? std::aligned_alloc(alignment, std::max(rounded, alignment)) : nullptr;
  if (!data)
    fail(ErrorCode::OutOfMemory, "the operating system refused ", bytes,
         " bytes of memory; a smaller token budget, activation recomputation or bfloat16 state would need less");
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  // Whole huge pages only, so that no more memory is used than was asked for.
  if (alignment == huge_page) madvise(data, bytes / huge_page * huge_page, MADV_HUGEPAGE);
#endif
  return data;
}

void CpuBackend::release(void* data) noexcept { std::free(data); }

void CpuBackend::upload(void* device, const void* host, std::size_t bytes) {
  if (bytes) std::memcpy(device, host, bytes);
}

void CpuBackend::download(void* host, const void* device, std::size_t bytes) {
  if (bytes) std::memcpy(host, device, bytes);
}

std::size_t CpuBackend::scratch_bytes() const {
  return scratch_.bytes() + gradient_workspace_.bytes() + query_rows_.capacity() * sizeof(QueryRow) +
         query_runs_.capacity() * sizeof(QueryRun) + tree_pieces_.capacity() * sizeof(std::int64_t);
}

float* CpuBackend::scratch(std::int64_t parts, std::int64_t floats) {
  const std::size_t bytes = static_cast<std::size_t>(parts * floats) * sizeof(float);
  if (bytes > scratch_.bytes()) {
    scratch_ = AlignedMemory();
    scratch_ = AlignedMemory(bytes);
  }
  return reinterpret_cast<float*>(scratch_.data());
}

void CpuBackend::add_parts(const float* parts, std::int64_t count, std::int64_t cols, float* total) {
  constexpr std::int64_t piece = 512;
  team_.parallel_for((cols + piece - 1) / piece, [&](std::int64_t task, int) {
    const std::int64_t begin = task * piece, size = std::min(piece, cols - begin);
    for (std::int64_t part = 0; part < count; ++part) kernels32_.add(parts + part * cols + begin, total + begin, size);
  });
}

void CpuBackend::fill_zero(View x) {
  for_elements(x.rows, x.cols, x.contiguous(), [&](std::int64_t row, std::int64_t begin, std::int64_t count) {
    const View part = x.slice_cols(begin, count);
    std::memset(static_cast<std::byte*>(part.data) + static_cast<std::size_t>(row * x.stride) * size_of(x.dtype), 0,
                static_cast<std::size_t>(count) * size_of(x.dtype));
  });
}

}  // namespace foretoken::cpu
