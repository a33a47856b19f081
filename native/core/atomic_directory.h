#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

#include "core/output_file.h"

namespace foretoken {

/// Writes a directory so that its path shows either the old content or the whole new one, whatever happens between.
///
/// Files go into a temporary sibling, reach the disk, and the sibling takes the target's place in one rename (one
/// exchange where the target exists). Destroyed without `commit`, it leaves no trace.
class AtomicDirectory {
 public:
  /// `ours` says of a file name whether a directory of this kind may hold it. A target that exists must be a directory
  /// of such files only, else InvalidArgument names the stranger: replacing would delete it. Throws Io.
  AtomicDirectory(const std::filesystem::path& target, const std::function<bool(const std::string& name)>& ours);
  ~AtomicDirectory();
  AtomicDirectory(const AtomicDirectory&) = delete;
  AtomicDirectory& operator=(const AtomicDirectory&) = delete;

  /// A new file in the directory; close it before `commit`.
  OutputFile create(const std::string& name);
  void write(const std::string& name, std::string_view text);
  void copy(const std::filesystem::path& from, const std::string& name);

  /// Makes the new content durable and visible. Throws Io; the old content is then still in place.
  void commit();

 private:
  std::filesystem::path target_;
  std::filesystem::path temporary_;  // empty once nothing is left to clean up
};

}  // namespace foretoken
