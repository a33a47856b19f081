#include "backend/cuda/device/emulator.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"

namespace foretoken::cuda {

namespace {

constexpr std::size_t kStack = 256 << 10;

thread_local Emulator* active = nullptr;

/// Fibers that no emulator of this thread uses: setting up their stacks costs more than most kernels of a test.
thread_local std::vector<std::unique_ptr<Fiber>> idle;

std::unique_ptr<Fiber> take_fiber() {
  if (idle.empty()) return std::make_unique<Fiber>(kStack);
  std::unique_ptr<Fiber> fiber = std::move(idle.back());
  idle.pop_back();
  return fiber;
}

}  // namespace

Emulator::Emulator(ThreadOrder order) : order_(order) {}

Emulator::~Emulator() {
  for (std::unique_ptr<Fiber>& fiber : fibers_) idle.push_back(std::move(fiber));
}

void Emulator::arrange(std::vector<std::int64_t>& order, std::int64_t count) {
  order.resize(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) order[i] = order_ == ThreadOrder::Reverse ? count - 1 - i : i;
  if (order_ != ThreadOrder::Random) return;
  for (std::int64_t i = count - 1; i > 0; --i) {
    random_ ^= random_ << 13;  // xorshift64 (Marsaglia 2003)
    random_ ^= random_ >> 7;
    random_ ^= random_ << 17;
    std::swap(order[i], order[static_cast<std::int64_t>(random_ % static_cast<std::uint64_t>(i + 1))]);
  }
}

void Emulator::run(const char* kernel, const Grid& grid, void (*body)(void*), void* context) {
  invariant(grid.threads > 0 && grid.threads <= kMaxThreads && grid.threads % kWarp == 0,
            "a block has whole warps and at most 1024 threads");
  invariant(grid.bands > 0 && grid.bands <= 65535 && grid.blocks < (std::int64_t{1} << 31), "the grid is too large");
  while (static_cast<int>(fibers_.size()) < grid.threads) fibers_.push_back(take_fiber());
  states_.resize(fibers_.size());
  warps_.resize(fibers_.size() / kWarp + 1);
  if (shared_bytes_ != grid.shared_bytes || !shared_) {
    // Exactly as much as was asked for, so that an overrun is seen.
    shared_.reset(static_cast<std::byte*>(::operator new(grid.shared_bytes, kSharedAlignment)));
    shared_bytes_ = grid.shared_bytes;
  }
  void* const shared = shared_.get();

  Emulator* const outer = active;
  active = this;
  fault_ = nullptr;
  arrange(blocks_, grid.blocks * grid.bands);
  try {
    for (const std::int64_t index : blocks_) {
      std::memset(shared, 0xff, grid.shared_bytes);  // NaNs: what nobody has written is not zero
      here = {0, grid.threads, index % grid.blocks, grid.blocks, static_cast<int>(index / grid.blocks), grid.bands,
              static_cast<std::byte*>(shared), here.serial + 1};
      run_block(kernel, body, context);
    }
  } catch (...) {
    active = outer;
    throw;
  }
  active = outer;
}

void Emulator::run_block(const char* kernel, void (*body)(void*), void* context) {
  const int threads = here.threads;
  for (int i = 0; i < threads; ++i) {
    states_[i] = State::Ready;
    fibers_[i]->start(body, context);
  }
  for (int w = 0; w < threads / kWarp; ++w) warps_[w].meeting = warps_[w].arrived = 0;
  at_barrier_ = 0;
  for (int done = 0; done < threads;) {
    moved_ = false;
    arrange(threads_, threads);
    for (const std::int64_t thread : threads_) {
      if (states_[thread] == State::Ready) moved_ = true;
      else if (states_[thread] != State::Paused) continue;
      states_[thread] = State::Ready;
      here.thread = static_cast<int>(thread);
      fibers_[thread]->resume();
      if (fault_) give_up(kernel, fault_);
      if (fibers_[thread]->finished()) {
        states_[thread] = State::Done;
        ++done;
      }
      if (at_barrier_ == threads) {
        std::fill_n(states_.begin(), threads, State::Ready);
        at_barrier_ = 0;
      }
    }
    if (moved_) continue;
    give_up(kernel, std::to_string(at_barrier_) + " of " + std::to_string(threads) +
                        " threads wait at a barrier, " + std::to_string(done) +
                        " have ended, the others wait for lanes of their warp or for arrivals");
  }
}

void Emulator::give_up(const char* kernel, const std::string& why) {
  fibers_.clear();  // in the middle of their bodies
  fail(ErrorCode::Internal, "kernel ", kernel, ", block ", here.block, ": ", why);
}

void Emulator::sync_block() {
  Emulator& self = *active;
  self.states_[here.thread] = State::AtBarrier;
  ++self.at_barrier_;
  self.fibers_[here.thread]->yield();
}

void Emulator::pause() {
  Emulator& self = *active;
  self.states_[here.thread] = State::Paused;
  self.fibers_[here.thread]->yield();
}

void Emulator::note_progress() { active->moved_ = true; }

void Emulator::report(const char* fault) { active->fault_ = fault; }

const std::byte* Emulator::exchange(int kind, const void* value, std::size_t bytes) {
  Emulator& self = *active;
  const int thread = here.thread, first = thread / kWarp * kWarp;
  Warp& warp = self.warps_[thread / kWarp];
  std::byte* slots = warp.slots[warp.meeting & 1];
  if (warp.arrived > 0 && warp.kind != kind) self.fault_ = "the lanes of a warp meet in different operations";
  warp.kind = kind;
  std::memcpy(slots + (thread - first) * kSlot, value, bytes);
  if (++warp.arrived == kWarp) {
    warp.arrived = 0;
    ++warp.meeting;
    std::fill_n(self.states_.begin() + first, kWarp, State::Ready);
  } else {
    self.states_[thread] = State::InWarp;
    self.fibers_[thread]->yield();
  }
  return slots;
}

}  // namespace foretoken::cuda
