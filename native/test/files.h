#pragma once

#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "core/error.h"

namespace foretoken::test {

/// The repository's root, from where this header was compiled.
inline std::filesystem::path repository() {
  return std::filesystem::absolute(__FILE__).parent_path().parent_path().parent_path();
}

inline std::filesystem::path fixture(const std::string& name) { return repository() / "test" / "fixtures" / name; }

/// A directory that lives as long as this object.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string pattern = (std::filesystem::temp_directory_path() / "foretoken-XXXXXX").string();
    if (!::mkdtemp(pattern.data())) fail(ErrorCode::Io, "cannot create ", pattern);
    path_ = pattern;
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

/// Writes a new file in the place of whatever is there: ext4 brings a file that is overwritten to the disk at once.
inline void write_file(const std::filesystem::path& path, const std::string& content) {
  std::filesystem::remove(path);
  std::ofstream file(path, std::ios::binary);
  file << content;
  file.close();
  if (!file) fail(ErrorCode::Io, "cannot write ", path.string());
}

inline std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) fail(ErrorCode::Io, "cannot read ", path.string());
  return {std::istreambuf_iterator<char>(file), {}};
}

/// A safetensors file's bytes: the length of the header, the header, the data.
inline std::string safetensors_bytes(const std::string& header, const std::string& data) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(static_cast<std::uint64_t>(header.size()) >> (8 * i) & 0xFF);
  return bytes + header + data;
}

/// The message of the Error that an action throws; empty where it throws none.
template <typename Action>
std::string message_of(const Action& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace foretoken::test
