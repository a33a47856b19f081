#include "core/atomic_directory.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef __linux__
#include <linux/fs.h>
#include <sys/syscall.h>
#endif

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <system_error>
#include <utility>

#include "core/error.h"
#include "core/mapped_file.h"

namespace foretoken {

namespace fs = std::filesystem;

namespace {

[[noreturn]] void refuse(const char* what, const fs::path& path, const std::string& reason) {
  fail(ErrorCode::Io, "cannot ", what, " ", path.string(), ": ", reason);
}

/// A name beside `target` that this process has not used before.
fs::path sibling(const fs::path& target) {
  static std::atomic<unsigned> counter{0};
  const std::string suffix = std::to_string(::getpid()) + "-" + std::to_string(counter.fetch_add(1));
  return target.parent_path() / ("." + target.filename().string() + ".writing-" + suffix);
}

void sync_directory(const fs::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) refuse("open", path, std::generic_category().message(errno));
  const bool durable = ::fsync(descriptor) == 0;
  const int reason = errno;
  ::close(descriptor);
  // Some network file systems cannot sync a directory; they order the rename themselves.
  if (!durable && reason != EINVAL && reason != ENOTSUP) refuse("sync", path, std::generic_category().message(reason));
}

/// Swaps two directories in one step; false where kernel or file system cannot.
bool exchange(const fs::path& a, const fs::path& b) {
#if defined(__linux__) && defined(SYS_renameat2) && defined(RENAME_EXCHANGE)
  if (::syscall(SYS_renameat2, AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE) == 0) return true;
#elif defined(__APPLE__) && defined(RENAME_SWAP)
  if (::renamex_np(a.c_str(), b.c_str(), RENAME_SWAP) == 0) return true;
#else
  (void)a, (void)b;
#endif
  return false;
}

void rename_or_refuse(const fs::path& from, const fs::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) refuse("replace", to, std::generic_category().message(errno));
}

}  // namespace

AtomicDirectory::AtomicDirectory(const fs::path& target, const std::function<bool(const std::string& name)>& ours) {
  std::error_code error;
  target_ = fs::weakly_canonical(fs::absolute(target), error);  // a link stays a link; what it points to is replaced
  if (error) refuse("resolve", target, error.message());
  if (!target_.has_filename()) target_ = target_.parent_path();

  const fs::file_status status = fs::status(target_, error);
  if (fs::exists(status)) {
    if (!fs::is_directory(status)) refuse("replace", target_, "it is not a directory");
    fs::directory_iterator entry(target_, error);
    for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
      const std::string name = entry->path().filename().string();
      if (!ours(name) || entry->is_directory()) {
        fail(ErrorCode::InvalidArgument, "will not replace ", target_.string(), ": it holds ", name,
             ", which is not part of what is saved and would be lost; choose another directory");
      }
    }
    if (error) refuse("list", target_, error.message());
  }

  fs::create_directories(target_.parent_path(), error);
  if (error) refuse("create", target_.parent_path(), error.message());
  temporary_ = sibling(target_);
  if (::mkdir(temporary_.c_str(), 0777) != 0) {
    const std::string reason = std::generic_category().message(errno);
    const fs::path path = std::exchange(temporary_, {});
    refuse("create", path, reason);
  }
}

AtomicDirectory::~AtomicDirectory() {
  std::error_code ignored;
  if (!temporary_.empty()) fs::remove_all(temporary_, ignored);
}

OutputFile AtomicDirectory::create(const std::string& name) { return OutputFile(temporary_ / name); }

void AtomicDirectory::write(const std::string& name, std::string_view text) {
  OutputFile file = create(name);
  file.write(text.data(), text.size());
  file.close();
}

void AtomicDirectory::copy(const fs::path& from, const std::string& name) { write(name, MappedFile(from).text()); }

void AtomicDirectory::commit() {
  sync_directory(temporary_);
  std::error_code error;
  if (!fs::exists(target_, error)) {
    rename_or_refuse(temporary_, target_);
    temporary_.clear();
  } else if (!exchange(temporary_, target_)) {
    // Two renames; between them the path is empty, and a failure puts the old content back.
    const fs::path old = sibling(target_);
    rename_or_refuse(target_, old);
    if (::rename(temporary_.c_str(), target_.c_str()) != 0) {
      const std::string reason = std::generic_category().message(errno);
      ::rename(old.c_str(), target_.c_str());
      refuse("replace", target_, reason);
    }
    temporary_ = old;
  }
  sync_directory(target_.parent_path());
  // What `temporary_` names now is the old content; a remainder that cannot be removed is no reason to fail.
  if (!temporary_.empty()) fs::remove_all(temporary_, error);
  temporary_.clear();
}

}  // namespace foretoken
