#include "core/output_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "core/error.h"

namespace foretoken {

OutputFile::OutputFile(const std::filesystem::path& path) : path_(path) {
  descriptor_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (descriptor_ < 0)
    fail(ErrorCode::Io, "cannot create ", path.string(), ": ", std::generic_category().message(errno));
}

OutputFile::~OutputFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)) {}

void OutputFile::write(const void* data, std::size_t bytes) {
  constexpr std::size_t most = std::size_t{1} << 30;  // Linux writes at most 2 GiB at once
  const char* next = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written = ::write(descriptor_, next, std::min(bytes, most));
    if (written < 0) {
      if (errno == EINTR) continue;
      fail(ErrorCode::Io, "cannot write ", path_.string(), ": ", std::generic_category().message(errno));
    }
    next += written;
    bytes -= static_cast<std::size_t>(written);
  }
}

void OutputFile::close() {
  const bool durable = ::fsync(descriptor_) == 0;
  const int reason = errno;
  const bool closed = ::close(std::exchange(descriptor_, -1)) == 0;
  if (!durable || !closed) {
    fail(ErrorCode::Io, "cannot complete ", path_.string(), ": ",
         std::generic_category().message(durable ? errno : reason));
  }
}

}  // namespace foretoken
