#include <cstring>
#include <new>

#include "backend/reference/reference_backend.h"
#include "core/error.h"

namespace foretoken {

using namespace reference;

constexpr std::align_val_t alignment{64};

void* ReferenceBackend::allocate(std::size_t bytes) {
  void* data = ::operator new(bytes, alignment, std::nothrow);
  if (!data) fail(ErrorCode::OutOfMemory, "the reference backend could not allocate ", bytes, " bytes");
  return data;
}

void ReferenceBackend::release(void* data) noexcept { ::operator delete(data, alignment); }

void ReferenceBackend::upload(void* device, const void* host, std::size_t bytes) {
  if (bytes) std::memcpy(device, host, bytes);
}

void ReferenceBackend::download(void* host, const void* device, std::size_t bytes) {
  if (bytes) std::memcpy(host, device, bytes);
}

void ReferenceBackend::fill_zero(View x) {
  for (std::int64_t n = 0; n < x.rows; ++n)
    for (std::int64_t c = 0; c < x.cols; ++c) set(x, n, c, 0);
}

void ReferenceBackend::convert(View from, View to) {
  for (std::int64_t n = 0; n < from.rows; ++n)
    for (std::int64_t c = 0; c < from.cols; ++c) set(to, n, c, get(from, n, c));
}

std::unique_ptr<Backend> make_reference_backend() { return std::make_unique<ReferenceBackend>(); }

}  // namespace foretoken
