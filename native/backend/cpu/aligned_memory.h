#pragma once

#include <cstddef>
#include <memory>

namespace foretoken::cpu {

/// Uninitialised memory on a cache line's boundary, in huge pages as far as it is large; throws OutOfMemory.
class AlignedMemory {
 public:
  AlignedMemory() = default;
  explicit AlignedMemory(std::size_t bytes);

  std::byte* data() const { return data_.get(); }
  std::size_t bytes() const { return bytes_; }

 private:
  struct Free { void operator()(std::byte* memory) const; };
  std::unique_ptr<std::byte, Free> data_;
  std::size_t bytes_ = 0;
};

}  // namespace foretoken::cpu
