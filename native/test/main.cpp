#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <vector>

#include "core/thread_team.h"
#include "test/test.h"

namespace foretoken::test {
namespace {

constexpr int kMostWorkers = 8;

/// What the processes that run tests have in common.
struct Progress {
  std::atomic<int> next{0};  // of the wanted tests
  std::atomic<int> passed{0}, failed{0}, skipped{0};
  std::atomic<int> running[kMostWorkers];
};

/// Tests take turns on the processors, each worker with one at a time.
void run_tests(const std::vector<const Case*>& tests, Progress& progress, int worker) {
  for (int i; (i = progress.next++) < static_cast<int>(tests.size());) {
    const Case& test = *tests[static_cast<std::size_t>(i)];
    progress.running[worker] = i;
    // A line is one write, so that those of several workers do not mix.
    const auto report = [&](const char* message) {
      std::printf("FAILED  %s\n        %s\n", test.name, message);
      ++progress.failed;
    };
    try {
      test.body();
      ++progress.passed;
    } catch (const Skipped& skip) {
      std::printf("skipped %s: %s\n", test.name, skip.reason.c_str());
      ++progress.skipped;
    } catch (const Failure& failure) {
      report(failure.message.c_str());
    } catch (const std::exception& error) {
      report(error.what());
    }
    std::fflush(stdout);
    progress.running[worker] = -1;
  }
}

/// A worker that ends in the middle of a test has failed it; the others go on.
void run_in_processes(const std::vector<const Case*>& tests, Progress& progress, int workers) {
  std::fflush(stdout);
  std::vector<pid_t> processes;
  for (int worker = 0; worker < workers; ++worker) {
    const pid_t process = fork();
    if (process < 0) break;
    if (process == 0) {
      run_tests(tests, progress, worker);
      std::exit(0);
    }
    processes.push_back(process);
  }
  for (std::size_t worker = 0; worker < processes.size(); ++worker) {
    int status = 0;
    waitpid(processes[worker], &status, 0);
    if (status == 0) continue;
    const int test = progress.running[worker];
    std::printf("FAILED  %s\n        its process ended with status %d\n",
                test < 0 ? "a worker" : tests[static_cast<std::size_t>(test)]->name, status);
    ++progress.failed;
  }
  run_tests(tests, progress, 0);  // what is left where no process could be made, or all have ended
}

}  // namespace
}  // namespace foretoken::test

/// Runs the tests whose name or file contains one of the arguments (all without arguments); exits 1 if one failed.
int main(int count, char** arguments) {
  using namespace foretoken::test;
  std::vector<const Case*> tests;
  for (const Case& test : cases()) {
    bool wanted = count == 1;
    for (int i = 1; i < count; ++i) wanted |= std::strstr(test.name, arguments[i]) || std::strstr(test.file, arguments[i]);
    if (wanted) tests.push_back(&test);
  }
  void* const memory = mmap(nullptr, sizeof(Progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return 2;
  Progress& progress = *new (memory) Progress;
  for (auto& running : progress.running) running = -1;
  // A GPU has one user at a time.
  const int most = std::getenv("FORETOKEN_TEST_CUDA") ? 1 : kMostWorkers;
  const int workers = std::min({foretoken::available_threads(), most, static_cast<int>(tests.size())});
  if (workers > 1) run_in_processes(tests, progress, workers);
  else run_tests(tests, progress, 0);
  const int passed = progress.passed, failed = progress.failed, skipped = progress.skipped;
  std::printf("native tests: %d passed, %d failed, %d skipped\n", passed, failed, skipped);
  if (passed + failed + skipped == 0) std::printf("no test matches\n");
  return failed > 0 || passed + skipped == 0;
}
