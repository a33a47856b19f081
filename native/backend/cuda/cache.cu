#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/device/launch.h"
#include "backend/cuda/pages.h"

namespace foretoken::cuda {

namespace {

// Page from[i] becomes page to[i] in every layer; words of 16 bytes.
FORETOKEN_KERNEL void cache_copy_kernel(const std::int32_t* from, const std::int32_t* to, std::int64_t count, Words* pages,
                                        std::int64_t page_words, std::int64_t layers, std::int64_t layer_words) {
  const std::int64_t total = layers * count * page_words;
  for (std::int64_t i = global_index(); i < total; i += global_threads()) {
    const std::int64_t item = i / page_words, word = i - item * page_words, layer = item / count, pair = item - layer * count;
    Words* base = pages + layer * layer_words + word;
    base[to[pair] * page_words] = base[from[pair] * page_words];
  }
}

}  // namespace

std::int64_t CudaBackend::page_positions() const { return kPagePositions; }

std::size_t CudaBackend::page_bytes(const AttentionShape& shape) const {
  return static_cast<std::size_t>(page_layout(shape, dtype_).elements()) * size_of(dtype_);
}

void CudaBackend::cache_copy(const std::int32_t* from, const std::int32_t* to, std::int64_t count,
                             const AttentionShape& shape, void* pages, std::int64_t layers, std::size_t layer_bytes) {
  constexpr int threads = 256;
  const std::int64_t page_words = static_cast<std::int64_t>(page_bytes(shape) / sizeof(Words));
  const std::int64_t total = layers * count * page_words;
  FORETOKEN_LAUNCH(*device_, cache_copy_kernel, (Grid{std::min<std::int64_t>((total + threads - 1) / threads, 1 << 16), threads}),
                   from, to, count, static_cast<Words*>(pages), page_words, layers,
                   static_cast<std::int64_t>(layer_bytes / sizeof(Words)));
}

}  // namespace foretoken::cuda
