#include <cstdlib>
#include <optional>
#include <string>

#include "backend/cuda/recordings.h"
#include "backend/cuda_library.h"
#include "core/error.h"
#include "test/cuda/emulated.h"
#include "test/files.h"
#include "test/test.h"

// Sequences of operations that a device writes down and repeats (backend/cuda/recordings.h), across the library's border.
namespace foretoken::test {
namespace {

using Integers = std::vector<std::int32_t>;

/// A sequence of two operations over numbers in device memory: b = a, c = b.
class Chain {
 public:
  static constexpr std::int64_t kCount = 5;

  explicit Chain(Backend& backend)
      : backend_(backend), a_(backend, kBytes), b_(backend, kBytes), c_(backend, kBytes), none_(backend, kBytes) {
    const Integers none(kCount, -1);
    backend.upload(none_.data(), none.data(), kBytes);
  }

  /// What c is after the sequence over a = {first, first + 1, …}; `meanwhile` happens between the two operations.
  template <typename Meanwhile>
  Integers run(std::uint64_t key, std::int32_t first, const Meanwhile& meanwhile) {
    Integers values(kCount);
    for (std::int32_t i = 0; i < kCount; ++i) values[i] = first + i;
    backend_.upload(a_.data(), values.data(), kBytes);
    calls = 0;
    backend_.sequence(key, [&] {
      ++calls;
      move(a_, b_);
      meanwhile();
      move(b_, c_);
    });
    backend_.download(values.data(), c_.data(), kBytes);
    return values;
  }
  Integers run(std::uint64_t key, std::int32_t first) {
    return run(key, first, [] {});
  }
  static Integers expected(std::int32_t first) {
    Integers values(kCount);
    for (std::int32_t i = 0; i < kCount; ++i) values[i] = first + i;
    return values;
  }

  int calls = 0;  // that the last run made of the sequence

 private:
  static constexpr std::size_t kBytes = kCount * sizeof(std::int32_t);
  void move(const Buffer& from, const Buffer& to) {
    backend_.select_tokens(static_cast<const std::int32_t*>(from.data()), nullptr, static_cast<const std::int32_t*>(none_.data()),
                           kCount, {}, static_cast<std::int32_t*>(to.data()), nullptr);
  }

  Backend& backend_;
  Buffer a_, b_, c_, none_;
};

std::unique_ptr<Backend> open() { return make_cuda_backend(emulated_library(), 0, DType::Float32); }

TEST("recordings: a sequence runs, is recorded, and then needs no calls, whatever numbers it finds") {
  const auto backend = open();
  CHECK(backend->records());
  Chain chain(*backend);
  for (const std::uint64_t key : {7, 9}) {
    for (int time = 0; time < 5; ++time) {
      CHECK(chain.run(key, 100 * time) == Chain::expected(100 * time));
      CHECK_EQ(chain.calls, time < 2 ? 1 : 0);
    }
  }
  CHECK(backend->scratch_bytes() > 0 || std::getenv("FORETOKEN_TEST_CUDA"));
}

TEST("recordings: a release of any memory forgets them") {
  const auto backend = open();
  Chain chain(*backend);
  std::optional<Buffer> other(std::in_place, *backend, 100);
  for (int time = 0; time < 3; ++time) chain.run(1, time);
  CHECK_EQ(chain.calls, 0);
  other.reset();
  for (int time = 0; time < 4; ++time) {
    CHECK(chain.run(1, 50 + time) == Chain::expected(50 + time));
    CHECK_EQ(chain.calls, time < 2 ? 1 : 0);
  }
}

TEST("recordings: what cannot be recorded is done without, and gives the same") {
  const auto backend = open();
  Chain chain(*backend);
  std::int32_t number = 0;
  Buffer place(*backend, sizeof number);
  const auto refused = [&](const char* what, const auto& meanwhile) {
    for (int time = 0; time < 4; ++time) {
      const std::string name = std::string(what) + ", time " + std::to_string(time);
      if (chain.run(std::hash<std::string>()(what), 10 * time, meanwhile) != Chain::expected(10 * time))
        fail_check(__FILE__, __LINE__, name, " gave something else");
      if (chain.calls < 1) fail_check(__FILE__, __LINE__, name, " was not called");
    }
  };
  refused("download", [&] { backend->download(&number, place.data(), sizeof number); });
  refused("upload", [&] { backend->upload(place.data(), &number, sizeof number); });
  refused("synchronize", [&] { backend->synchronize(); });
  std::vector<Buffer> kept;
  refused("allocate", [&] { kept.emplace_back(*backend, 64); });
  int call = 0;
  std::optional<Buffer> memory(std::in_place, *backend, 64);
  refused("release", [&] {
    if (++call == 2) memory.reset();  // while it is recorded
  });
  // The device is none the worse for it.
  for (int time = 0; time < 3; ++time) CHECK(chain.run(1, time) == Chain::expected(time));
  CHECK_EQ(chain.calls, 0);
}

TEST("recordings: an error in a sequence is thrown, recorded or not, and the backend goes on working") {
  const auto backend = open();
  Chain chain(*backend);
  const auto faulty = [] { fail(ErrorCode::Aborted, "stop here"); };
  CHECK_FAILS(ErrorCode::Aborted, chain.run(1, 0, faulty));
  CHECK_FAILS(ErrorCode::Aborted, chain.run(1, 0, faulty));
  CHECK_FAILS(ErrorCode::Aborted, chain.run(1, 0, faulty));
  for (int time = 0; time < 3; ++time) CHECK(chain.run(1, time) == Chain::expected(time));
  for (int time = 0; time < 3; ++time) CHECK(chain.run(2, time) == Chain::expected(time));
  CHECK_EQ(chain.calls, 0);
}

TEST("recordings: of too many, those that were used longest ago make room") {
  const auto backend = open();
  Chain chain(*backend);
  const auto most = static_cast<std::uint64_t>(cuda::Recordings::kMost);
  for (std::uint64_t key = 0; key < most; ++key)
    for (int time = 0; time < 3; ++time) chain.run(key, time);
  chain.run(0, 1);
  CHECK_EQ(chain.calls, 0);
  chain.run(most, 1);  // takes the place of key 1
  chain.run(0, 2);
  CHECK_EQ(chain.calls, 0);
  CHECK(chain.run(1, 3) == Chain::expected(3));
  CHECK_EQ(chain.calls, 1);
}

TEST("recordings: FORETOKEN_CUDA_GRAPHS turns them off, and is 0 or 1") {
  const EnvironmentVariable off("FORETOKEN_CUDA_GRAPHS", "0");
  const auto backend = open();
  CHECK(!backend->records());
  Chain chain(*backend);
  for (int time = 0; time < 4; ++time) {
    CHECK(chain.run(1, time) == Chain::expected(time));
    CHECK_EQ(chain.calls, 1);
  }
  const EnvironmentVariable wrong("FORETOKEN_CUDA_GRAPHS", "yes");
  CHECK_FAILS(ErrorCode::InvalidArgument, open());
  CHECK(contains(message_of([] { open(); }), "it can be 0 or 1"));
}

}  // namespace
}  // namespace foretoken::test
