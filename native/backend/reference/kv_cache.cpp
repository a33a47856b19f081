#include <cstring>

#include "backend/reference/kv_page.h"
#include "backend/reference/reference_backend.h"

namespace foretoken {

using namespace reference;

std::size_t ReferenceBackend::page_bytes(const AttentionShape& shape) const {
  return static_cast<std::size_t>(2 * page_positions() * shape.kv_heads * shape.head_dim) * sizeof(double);
}

void ReferenceBackend::cache_copy(const std::int32_t* from, const std::int32_t* to, std::int64_t count,
                                  const AttentionShape& shape, void* pages, std::int64_t layers,
                                  std::size_t layer_bytes) {
  const std::size_t bytes = page_bytes(shape);
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    std::byte* base = static_cast<std::byte*>(pages) + static_cast<std::size_t>(layer) * layer_bytes;
    for (std::int64_t i = 0; i < count; ++i)
      std::memcpy(base + static_cast<std::size_t>(to[i]) * bytes, base + static_cast<std::size_t>(from[i]) * bytes,
                  bytes);
  }
}

}  // namespace foretoken
