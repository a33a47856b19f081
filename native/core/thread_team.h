#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <type_traits>

namespace foretoken {

/// The number of threads worth starting: CPU affinity, capped by the cgroup's CPU quota (rounded up), at least 1.
int available_threads();

/// A fixed set of threads that share out the indices of one loop at a time.
///
/// The caller's thread takes part. Which thread runs which index is not fixed, so a task's result may depend
/// on its index and on shapes only: that is what makes results independent of the number of threads.
class ThreadTeam {
 public:
  /// Starts `threads - 1` helpers (0 means `available_threads()`).
  explicit ThreadTeam(int threads);
  ~ThreadTeam();
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  int size() const { return size_; }

  /// Calls `body(index, worker)` once for every index in [0, count), worker in [0, size()); returns when all are done.
  /// Bodies must not throw and must not call parallel_for. Not reentrant: one calling thread at a time.
  template <typename Body>
  void parallel_for(std::int64_t count, const Body& body) {
    run(count, [](const void* context, std::int64_t index, int worker) {
      (*static_cast<const Body*>(context))(index, worker);
    }, &body);
  }

 private:
  using Call = void (*)(const void* context, std::int64_t index, int worker);
  void run(std::int64_t count, Call call, const void* context);

  struct State;
  std::unique_ptr<State> state_;
  int size_ = 1;
};

}  // namespace foretoken
