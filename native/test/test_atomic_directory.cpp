#include <sys/resource.h>

#include <csignal>

#include "core/atomic_directory.h"
#include "core/mapped_file.h"
#include "test/files.h"
#include "test/test.h"

using namespace foretoken;
using namespace foretoken::test;
namespace fs = std::filesystem;

namespace {

bool text_file(const std::string& name) { return name.ends_with(".txt"); }

void save(const fs::path& target, const std::string& text) {
  AtomicDirectory directory(target, text_file);
  directory.write("a.txt", text);
  directory.commit();
}

std::size_t entries(const fs::path& path) {
  return static_cast<std::size_t>(std::distance(fs::directory_iterator(path), fs::directory_iterator()));
}

/// While it lives, a file may grow to `bytes` only: writing more fails as on a full disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    handler_ = std::signal(SIGXFSZ, SIG_IGN);
    const struct rlimit limit{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  struct rlimit before_{};
  void (*handler_)(int) = nullptr;
};

}  // namespace

TEST("atomic directory: what was committed is all there is, the first time and the second") {
  const TemporaryDirectory scratch;
  save(scratch / "deep/target", "one");
  CHECK_EQ(read_file(scratch / "deep/target/a.txt"), "one");
  write_file(scratch / "deep/target/stale.txt", "stale");
  save(scratch / "deep/target", "two");
  CHECK_EQ(read_file(scratch / "deep/target/a.txt"), "two");
  CHECK_EQ(entries(scratch / "deep/target"), 1u);
  CHECK_EQ(entries(scratch / "deep"), 1u);
}

TEST("atomic directory: without a commit the target keeps its content and nothing is left beside it") {
  const TemporaryDirectory scratch;
  save(scratch / "target", "one");
  {
    AtomicDirectory directory(scratch / "target", text_file);
    directory.write("a.txt", "two");
  }
  CHECK_EQ(read_file(scratch / "target/a.txt"), "one");
  CHECK_EQ(entries(scratch.path()), 1u);
}

TEST("atomic directory: a disk that takes no more is an Io error that names the file, and the old content stays") {
  const TemporaryDirectory scratch;
  save(scratch / "target", "one");
  {
    const FileSizeLimit limit(1000);
    CHECK_FAILS(ErrorCode::Io, save(scratch / "target", std::string(5000, 'x')));
    CHECK(contains(message_of([&] { save(scratch / "target", std::string(5000, 'x')); }), "a.txt"));
  }
  CHECK_EQ(read_file(scratch / "target/a.txt"), "one");
  CHECK_EQ(entries(scratch.path()), 1u);
}

TEST("atomic directory: a directory with a stranger's file or folder is not replaced") {
  const TemporaryDirectory scratch;
  save(scratch / "target", "one");
  write_file(scratch / "target/thesis.tex", "months of work");
  CHECK_FAILS(ErrorCode::InvalidArgument, save(scratch / "target", "two"));
  fs::remove(scratch / "target/thesis.tex");
  fs::create_directory(scratch / "target/folder.txt");
  CHECK_FAILS(ErrorCode::InvalidArgument, save(scratch / "target", "two"));
  CHECK_EQ(read_file(scratch / "target/a.txt"), "one");
}

TEST("atomic directory: a file in the target's place, or on its way, is an Io error") {
  const TemporaryDirectory scratch;
  write_file(scratch / "file", "here");
  CHECK_FAILS(ErrorCode::Io, save(scratch / "file", "two"));
  CHECK_FAILS(ErrorCode::Io, save(scratch / "file/below", "two"));
}

TEST("atomic directory: a link to a directory keeps being one") {
  const TemporaryDirectory scratch;
  save(scratch / "real", "one");
  fs::create_directory_symlink(scratch / "real", scratch / "link");
  save(scratch / "link", "two");
  CHECK(fs::is_symlink(scratch / "link"));
  CHECK_EQ(read_file(scratch / "real/a.txt"), "two");
}

TEST("mapped file: content, an empty file, and what is no regular file") {
  const TemporaryDirectory scratch;
  write_file(scratch / "full", "content");
  write_file(scratch / "empty", "");
  MappedFile file(scratch / "full");
  const MappedFile moved(std::move(file));
  CHECK_EQ(moved.text(), "content");
  CHECK_EQ(MappedFile(scratch / "empty").bytes().size(), 0u);
  CHECK_FAILS(ErrorCode::Io, MappedFile(scratch / "absent"));
  CHECK_FAILS(ErrorCode::Io, MappedFile(scratch.path()));
  CHECK_FAILS(ErrorCode::Io, MappedFile("/dev/zero"));
  CHECK(contains(message_of([&] { MappedFile(scratch / "absent"); }), "absent"));
}

TEST("mapped file: a file that was replaced stays readable where it is mapped") {
  const TemporaryDirectory scratch;
  save(scratch / "target", "one");
  const MappedFile mapped(scratch / "target/a.txt");
  save(scratch / "target", "two");
  CHECK_EQ(mapped.text(), "one");
}
