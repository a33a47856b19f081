#include "backend/cpu/aligned_memory.h"

#include <cstdlib>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "core/error.h"

namespace foretoken::cpu {

AlignedMemory::AlignedMemory(std::size_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  constexpr std::size_t kLine = 64, kHugePage = std::size_t{1} << 21;
  const std::size_t alignment = bytes >= kHugePage ? kHugePage : kLine;
  void* block = nullptr;  // aligned_alloc would want a size that is a multiple of the alignment
  if (posix_memalign(&block, alignment, bytes) == 0) data_.reset(static_cast<std::byte*>(block));
  if (!data_) fail(ErrorCode::OutOfMemory, "the operating system refused ", bytes, " bytes of memory");
#ifdef __linux__
  // Panels are read from end to end, and translating addresses page by page would take a good part of the time. Only
  // whole huge pages are asked for, so that no more memory is used than was planned; a refusal does no harm.
  if (bytes >= kHugePage) madvise(data_.get(), bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
#endif
}

void AlignedMemory::Free::operator()(std::byte* memory) const { std::free(memory); }

}  // namespace foretoken::cpu
