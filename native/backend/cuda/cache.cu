#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/elementwise.h"
#include "backend/cuda/pages.h"

namespace foretoken::cuda {

namespace {

// Row rows[i] of k and v becomes lane lanes[i] of page pages[i]; a matrix row per (write, kv head).
template <typename T>
FORETOKEN_KERNEL void cache_write_kernel(Matrix<const T> k, Matrix<const T> v, CacheWrites writes, PageLayout layout, T* pages,
                                         Chunks chunks) {
  for_chunks(chunks, [&](std::int64_t item, std::int64_t d, std::int64_t count) {
    const std::int64_t i = item / layout.kv_heads;
    const int head = static_cast<int>(item - i * layout.kv_heads);
    const std::int64_t source = std::int64_t{head} * layout.head_dim + d;
    const std::int64_t target = std::int64_t{writes.lanes[i]} * layout.row + d;
    const bool whole_rows = layout.head_dim % kChunk == 0;
    float x[kChunk];
    load_chunk(k.row(writes.rows[i]) + source, count, k.aligned && whole_rows, x);
    store_chunk(layout.keys(pages, writes.pages[i], head) + target, count, true, x);
    load_chunk(v.row(writes.rows[i]) + source, count, v.aligned && whole_rows, x);
    store_chunk(layout.values(pages, writes.pages[i], head) + target, count, true, x);
  });
}

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

void CudaBackend::cache_write(View k, View v, const CacheWrites& writes, const AttentionShape& shape, void* pages) {
  const Chunks chunks = Chunks::of(writes.count * shape.kv_heads, shape.head_dim, false);
  with_type(dtype_, [&](auto t) {
    using T = decltype(t);
    FORETOKEN_LAUNCH(*device_, (cache_write_kernel<T>), chunks.grid(), matrix<const T>(k), matrix<const T>(v), writes,
                     page_layout(shape, dtype_), static_cast<T*>(pages), chunks);
  });
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
