#include <cmath>
#include <vector>

#include "backend/cuda/device/portable.h"
#include "core/error.h"
#include "test/files.h"
#include "test/test.h"

#if defined(__SANITIZE_ADDRESS__)
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

// What the emulator finds in kernels that are wrong.
namespace foretoken::test {
namespace {

using namespace cuda;

constexpr int kThreads = 96;
constexpr ThreadOrder kOrders[] = {ThreadOrder::Forward, ThreadOrder::Reverse, ThreadOrder::Random};

/// What each thread reads from the one below it by way of shared memory, with or without the barrier that it takes.
std::vector<float> neighbours(ThreadOrder order, bool barrier) {
  std::vector<float> read(kThreads);
  Emulator(order).run("neighbours", {1, kThreads, kThreads * sizeof(float)}, [&] {
    float* shared = shared_memory<float>();
    shared[thread_index()] = static_cast<float>(thread_index());
    if (barrier) sync_block();
    read[thread_index()] = shared[thread_index() > 0 ? thread_index() - 1 : 0];
  });
  return read;
}

TEST("emulator: with a barrier every order of threads gives the same, without it the random order does not") {
  const std::vector<float> expected = neighbours(ThreadOrder::Forward, true);
  CHECK_EQ(expected[kThreads - 1], kThreads - 2.0f);
  for (const ThreadOrder order : kOrders) CHECK(neighbours(order, true) == expected);
  CHECK(neighbours(ThreadOrder::Forward, false) == expected);  // the order in which the mistake does not show
  for (const ThreadOrder order : {ThreadOrder::Reverse, ThreadOrder::Random}) {
    bool unwritten = false;
    for (const float value : neighbours(order, false)) unwritten |= std::isnan(value);
    CHECK(unwritten);
  }
}

TEST("emulator: a barrier that not all threads reach is reported with the kernel's name") {
  for (const ThreadOrder order : kOrders) {
    Emulator emulator(order);
    const auto half = [&] {
      emulator.run("half a barrier", {2, kThreads}, [] {
        if (thread_index() < 40) sync_block();
      });
    };
    CHECK_FAILS(ErrorCode::Internal, (half(), 0));
    const std::string message = message_of(half);
    CHECK(contains(message, "kernel half a barrier"));
    CHECK(contains(message, "40 of 96 threads wait at a barrier, 56 have ended"));
    int ran = 0;
    emulator.run("sound", {3, 32}, [&] { ran += thread_index() == 0; });  // the emulator is good for more
    CHECK_EQ(ran, 3);
  }
}

TEST("emulator: a shuffle that not all lanes join is reported, and so are lanes in different ones") {
  for (const ThreadOrder order : kOrders) {
    Emulator emulator(order);
    CHECK_FAILS(ErrorCode::Internal, (emulator.run("lanes", {1, 32}, [] {
                  if (lane_index() != 7) shuffle_xor(1, 1);
                }), 0));
    const auto mixed = [&] {
      emulator.run("mixed", {1, 32}, [] {
        if (lane_index() < 16) shuffle_xor(1, 1);
        else ballot(true);
      });
    };
    CHECK(contains(message_of(mixed), "the lanes of a warp meet in different operations"));
  }
}

TEST("emulator: shuffles, votes and atomics do what CUDA's do") {
  for (const ThreadOrder order : kOrders) {
    std::vector<int> exchanged(kThreads), lifted(kThreads), sent(kThreads);
    std::vector<std::uint32_t> votes(kThreads);
    std::uint32_t sum = 0;
    Emulator(order).run("warps", {2, kThreads}, [&] {
      const int t = thread_index();
      exchanged[t] = shuffle_xor(t, 5);
      lifted[t] = shuffle_up(t, 3);
      sent[t] = shuffle(t, 9);
      votes[t] = ballot(lane_index() % 3 == 0);
      atomic_add(&sum, static_cast<std::uint32_t>(t));
    });
    for (int t = 0; t < kThreads; ++t) {
      const int lane = t % 32, warp = t - lane;
      CHECK_EQ(exchanged[t], warp + (lane ^ 5));
      CHECK_EQ(lifted[t], lane < 3 ? t : t - 3);
      CHECK_EQ(sent[t], warp + 9);
      CHECK_EQ(votes[t], 0x49249249u);
    }
    CHECK_EQ(sum, static_cast<std::uint32_t>(2 * kThreads * (kThreads - 1) / 2));
  }
}

TEST("emulator: AddressSanitizer sees a kernel that leaves its shared memory") {
#if defined(__SANITIZE_ADDRESS__)
  for (const bool beyond : {false, true}) {
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
      const int nowhere = open("/dev/null", O_WRONLY);
      dup2(nowhere, 2);  // the report
      Emulator(ThreadOrder::Forward).run("overrun", {1, 32, 32 * sizeof(float)}, [&] {
        shared_memory<float>()[thread_index() + (beyond ? 1 : 0)] = 1;  // the last thread's is one too far
      });
      _exit(0);
    }
    int status = 0;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(WIFEXITED(status) && WEXITSTATUS(status) == 0, !beyond);
  }
#else
  SKIP("needs AddressSanitizer: npm run test:sanitize");
#endif
}

}  // namespace
}  // namespace foretoken::test
