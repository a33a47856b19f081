#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "backend/cuda/device/fiber.h"
#include "backend/cuda/device/grid.h"

// Runs kernels on the host: blocks one after the other, the threads of a block as fibers that change places at barriers
// and shuffles. Everything happens on the calling thread, so atomics are plain operations.
namespace foretoken::cuda {

/// The order in which blocks run, and threads between two barriers: a kernel without races gives the same bits in all.
enum class ThreadOrder { Forward, Reverse, Random };

/// What the running thread knows about itself.
struct Place {
  int thread, threads;
  std::int64_t block, blocks;
  int band, bands;
  std::byte* shared;
  std::uint64_t serial;  // of the block among all that this thread of the host has run
};
inline constinit thread_local Place here{};

class Emulator {
 public:
  explicit Emulator(ThreadOrder order);
  ~Emulator();

  /// Runs body once for every thread of the grid. Throws Internal, naming the kernel, where threads wait for others that
  /// never come: a barrier that not all threads of a block reach, a shuffle that not all lanes of a warp take part in.
  template <typename Body>
  void run(const char* kernel, const Grid& grid, const Body& body) {
    run(kernel, grid, [](void* context) { (*static_cast<const Body*>(context))(); }, const_cast<Body*>(&body));
  }

  /// Does the work, or appends it to the list that was given last.
  void queue(std::function<void()> work) {
    if (recorded_) recorded_->push_back(std::move(work));
    else work();
  }
  /// A list for what is queued from now on, instead of doing it; null ends that.
  void record(std::vector<std::function<void()>>* list) { recorded_ = list; }

  // Called by running threads.
  static void sync_block();
  /// Waits for all lanes of the warp and gives what each brought to this meeting, kSlot bytes apart; valid until the
  /// lane's next meeting but one.
  static const std::byte* exchange(int kind, const void* value, std::size_t bytes);

  /// Lets other threads run until ready() holds, which is something that they bring about.
  template <typename Ready>
  static void wait_until(const Ready& ready) {
    if (ready()) return;
    do pause(); while (!ready());
    note_progress();
  }
  /// The kernel is wrong, and this says how: Emulator::run throws.
  static void report(const char* fault);

  static constexpr std::size_t kSlot = 16;

 private:
  enum class State : std::uint8_t { Ready, Paused, AtBarrier, InWarp, Done };
  struct Warp {
    std::byte slots[2][kWarp * kSlot];
    int meeting = 0;  // parity picks the slots: a fast lane may write for the next meeting while a slow one still reads
    int arrived = 0;
    int kind = 0;
  };

  static constexpr std::align_val_t kSharedAlignment{128};
  struct FreeShared {
    void operator()(std::byte* data) const { ::operator delete(data, kSharedAlignment); }
  };

  void run(const char* kernel, const Grid& grid, void (*body)(void*), void* context);
  static void pause();
  static void note_progress();
  void run_block(const char* kernel, void (*body)(void*), void* context);
  void arrange(std::vector<std::int64_t>& order, std::int64_t count);
  [[noreturn]] void give_up(const char* kernel, const std::string& why);

  ThreadOrder order_;
  std::uint64_t random_ = 0x2545F4914F6CDD1Du;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<State> states_;
  std::vector<Warp> warps_;
  std::vector<std::int64_t> threads_, blocks_;  // in the order in which they run
  std::unique_ptr<std::byte, FreeShared> shared_;
  std::size_t shared_bytes_ = 0;
  int at_barrier_ = 0;
  bool moved_ = false;  // some thread since all were looked at
  const char* fault_ = nullptr;
  std::vector<std::function<void()>>* recorded_ = nullptr;
};

}  // namespace foretoken::cuda
