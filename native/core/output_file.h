#pragma once

#include <cstddef>
#include <filesystem>

namespace foretoken {

/// A file being written. Every failure (no space left, quota, I/O error) is an Io error that names the path.
class OutputFile {
 public:
  /// Creates the file, which must not exist yet.
  explicit OutputFile(const std::filesystem::path& path);
  ~OutputFile();
  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&& other) = delete;

  void write(const void* data, std::size_t bytes);

  /// Brings the content to the disk and closes. A file destroyed unclosed may be incomplete.
  void close();

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

}  // namespace foretoken
