#include <atomic>
#include <vector>

#include "core/thread_team.h"
#include "test/test.h"

using namespace foretoken;

TEST("a team of any size visits every index once, loop after loop") {
  for (int threads : {1, 2, 3, 8}) {
    ThreadTeam team(threads);
    CHECK_EQ(team.size(), threads);
    for (std::int64_t count : {0, 1, 2, 7, 64, 1000}) {
      for (int round = 0; round < 20; ++round) {
        std::vector<std::atomic<int>> visits(count);
        std::atomic<bool> worker_in_range{true};
        team.parallel_for(count, [&](std::int64_t index, int worker) {
          ++visits[index];
          if (worker < 0 || worker >= threads) worker_in_range = false;
        });
        for (const auto& times : visits) CHECK_EQ(times.load(), 1);
        CHECK(worker_in_range);
      }
    }
  }
}

TEST("two indices never share a worker at the same time") {
  ThreadTeam team(4);
  std::vector<std::atomic<int>> busy(4);
  std::atomic<bool> shared{false};
  team.parallel_for(2000, [&](std::int64_t, int worker) {
    if (busy[worker]++ != 0) shared = true;
    for (int spin = 0; spin < 50; ++spin) busy[worker].load();
    --busy[worker];
  });
  CHECK(!shared);
}

TEST("the writes of a loop are seen by the caller and by the next loop") {
  ThreadTeam team(2);
  std::vector<int> values(512, 0);  // plain ints: the team's own synchronisation must order them
  for (int round = 1; round <= 200; ++round) {
    team.parallel_for(512, [&](std::int64_t index, int) { values[(index * 7 + round) % 512] += 1; });
    for (int value : values) CHECK_EQ(value, round);
  }
}

TEST("many short loops visit every index once, whichever helpers come in time") {
  ThreadTeam team(8);
  std::vector<int> visits(5, 0);
  for (int round = 1; round <= 20000; ++round) {
    team.parallel_for(5, [&](std::int64_t index, int) { ++visits[index]; });
    CHECK(visits == std::vector<int>(5, round));
  }
}

TEST("a team asked for no number of threads takes what the machine grants") {
  ThreadTeam team(0);
  CHECK_EQ(team.size(), available_threads());
}
