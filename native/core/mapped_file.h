#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string_view>

namespace foretoken {

/// A regular file mapped read-only into memory; an empty file is an empty span.
///
/// Truncating a mapped file in place faults its readers. Nothing of ours does that: checkpoints are replaced whole,
/// and a mapping keeps the replaced file alive.
class MappedFile {
 public:
  MappedFile() = default;
  /// Throws Io naming the path: absent, unreadable, or not a regular file (directory, pipe, device).
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  std::string_view text() const { return {reinterpret_cast<const char*>(data_), size_}; }

 private:
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace foretoken
