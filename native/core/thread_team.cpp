#include "core/thread_team.h"

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <thread>
#include <vector>

#ifdef __linux__
#include <sched.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace foretoken {

namespace {

/// CPUs that the cgroup (version 2, then 1) grants, or infinity.
double cgroup_cpus() {
#ifdef __linux__
  double quota = 0, period = 0;
  if (std::FILE* file = std::fopen("/sys/fs/cgroup/cpu.max", "re")) {
    const int fields = std::fscanf(file, "%lf %lf", &quota, &period);
    std::fclose(file);
    return fields == 2 && quota > 0 && period > 0 ? quota / period : INFINITY;
  }
  const auto number = [](const char* path) {
    double value = -1;
    if (std::FILE* file = std::fopen(path, "re")) {
      if (std::fscanf(file, "%lf", &value) != 1) value = -1;
      std::fclose(file);
    }
    return value;
  };
  quota = number("/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
  period = number("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  if (quota > 0 && period > 0) return quota / period;
#endif
  return INFINITY;
}

void relax() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Long enough to bridge the gap between two operations of one forward pass, short enough not to burn a shared core.
constexpr int kSpins = 4000;

constexpr std::uint64_t kOpen = std::uint64_t{1} << 31;
constexpr std::uint64_t kInside = kOpen - 1;
constexpr std::uint64_t loop_of(std::uint64_t door) { return door >> 32; }

}  // namespace

int available_threads() {
  int count = static_cast<int>(std::thread::hardware_concurrency());
#ifdef __linux__
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) count = CPU_COUNT(&set);
#endif
  const double granted = cgroup_cpus();
  if (std::isfinite(granted)) count = std::min(count, static_cast<int>(std::ceil(granted)));
  return std::max(count, 1);
}

struct ThreadTeam::State {
  std::mutex mutex;
  std::condition_variable wake;
  std::atomic<bool> stopping{false};
  std::atomic<int> sleeping{0};

  // The loop under way. A helper reads these only between coming in by the door and going out; the caller changes them
  // only while the door is shut and nobody is inside.
  Call call = nullptr;
  const void* context = nullptr;
  std::int64_t count = 0;
  alignas(64) std::atomic<std::int64_t> next{0};
  // Number of the loop << 32 | open | helpers inside. Nobody waits for a helper that has not come in: on a machine with
  // other work it may get a CPU long after the caller has done everything itself.
  alignas(64) std::atomic<std::uint64_t> door{0};

  std::vector<std::thread> helpers;

  void work(int worker) {
    for (std::int64_t index; (index = next.fetch_add(1, std::memory_order_relaxed)) < count;) call(context, index, worker);
  }

  /// Whether the loop was still open; its number is in `seen` either way.
  bool come_in(std::uint64_t& seen) {
    std::uint64_t now = door.load(std::memory_order_acquire);
    while (now & kOpen)
      if (door.compare_exchange_weak(now, now + 1, std::memory_order_acquire)) break;
    seen = loop_of(now);
    return now & kOpen;
  }

  void serve(int worker) {
    std::uint64_t seen = 0;
    for (;;) {
      int spins = 0;
      while (loop_of(door.load(std::memory_order_acquire)) == seen && !stopping.load(std::memory_order_acquire)) {
        if (++spins < kSpins) { relax(); continue; }
        std::unique_lock lock(mutex);
        sleeping.fetch_add(1, std::memory_order_seq_cst);
        wake.wait(lock, [&] { return loop_of(door.load(std::memory_order_seq_cst)) != seen || stopping.load(); });
        sleeping.fetch_sub(1, std::memory_order_seq_cst);
      }
      if (stopping.load(std::memory_order_acquire)) return;
      if (!come_in(seen)) continue;
      work(worker);
      door.fetch_sub(1, std::memory_order_release);
    }
  }
};

ThreadTeam::ThreadTeam(int threads) : state_(std::make_unique<State>()) {
  size_ = threads > 0 ? threads : available_threads();
  try {
    for (int worker = 1; worker < size_; ++worker) state_->helpers.emplace_back([this, worker] { state_->serve(worker); });
  } catch (...) {
    // A limit on threads is no reason to fail: results do not depend on how many there are.
    size_ = static_cast<int>(state_->helpers.size()) + 1;
  }
}

ThreadTeam::~ThreadTeam() {
  {
    std::lock_guard lock(state_->mutex);
    state_->stopping.store(true);
  }
  state_->wake.notify_all();
  for (std::thread& helper : state_->helpers) helper.join();
}

void ThreadTeam::run(std::int64_t count, Call call, const void* context) {
  if (count <= 0) return;
  if (size_ == 1 || count == 1) {
    for (std::int64_t index = 0; index < count; ++index) call(context, index, 0);
    return;
  }
  State& state = *state_;
  state.call = call;
  state.context = context;
  state.count = count;
  state.next.store(0, std::memory_order_relaxed);
  const std::uint64_t loop = (loop_of(state.door.load(std::memory_order_relaxed)) + 1) & 0xffffffffu;
  state.door.store(loop << 32 | kOpen, std::memory_order_seq_cst);
  if (state.sleeping.load(std::memory_order_seq_cst) > 0) {
    std::lock_guard lock(state.mutex);
    state.wake.notify_all();
  }
  state.work(0);
  state.door.fetch_and(~kOpen, std::memory_order_acq_rel);
  // Yielding keeps an oversubscribed machine (a container with fewer CPUs than threads) from spinning out its share.
  for (int spins = 0; (state.door.load(std::memory_order_acquire) & kInside) != 0;) {
    if (++spins < kSpins) relax(); else std::this_thread::yield();
  }
}

}  // namespace foretoken
