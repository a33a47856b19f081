#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "engine/engine.h"
#include "node/failure.h"

namespace foretoken {

/// One call of a verb on its way through the engine's thread. Holds nothing of JavaScript.
class EngineCall {
 public:
  virtual ~EngineCall() = default;

  /// Runs on the engine's thread. `engine` is empty until a call has put one there.
  virtual void run(std::unique_ptr<Engine>& engine, const Control& control) = 0;

  /// Why there is no result; to be read once the call is reported as finished.
  const std::optional<Failure>& failure() const { return failure_; }

 private:
  friend class EngineThread;
  std::atomic<bool> aborted_{false};
  std::optional<Failure> failure_;
};

/// The thread that owns one Engine: calls run on it one after another, in the order they were submitted.
///
/// The engine is made, used and destroyed on this thread only. Results wait here until take_reports(); `wake` asks
/// the other side to come for them. All other members belong to the one thread that submits.
class EngineThread {
 public:
  struct Progress {
    std::shared_ptr<EngineCall> call;
    std::int64_t done = 0, total = 0;
  };
  struct Reports {
    std::optional<Progress> progress;                   // the newest only: what came between is dropped
    std::vector<std::shared_ptr<EngineCall>> finished;  // in the order they ended
    std::size_t memory_held = 0;                        // by the engine after its last call, bytes
    bool ended = false;                                 // the engine is destroyed, join() will not wait
  };

  /// `wake` is called on either thread, never under the lock, at most once until the next take_reports().
  explicit EngineThread(std::function<void()> wake);
  ~EngineThread();
  EngineThread(const EngineThread&) = delete;
  EngineThread& operator=(const EngineThread&) = delete;

  void submit(std::shared_ptr<EngineCall> call);

  /// A queued call fails with Aborted at once; the running one at its next check; a finished one is left alone.
  void abort(const std::shared_ptr<EngineCall>& call);

  /// Fails what is queued with Disposed, asks the running call to abort and lets the thread end. Does not wait.
  void stop();

  /// Waits for the thread to end; stop() comes first.
  void join();

  Reports take_reports();

 private:
  void main();
  void run(const std::shared_ptr<EngineCall>& call, std::unique_ptr<Engine>& engine);
  /// Sets `wake_sent_`; true when the caller, having unlocked, is to wake.
  bool wants_wake();

  const std::function<void()> wake_;
  std::mutex mutex_;
  std::condition_variable work_;
  std::deque<std::shared_ptr<EngineCall>> queue_;  // guarded by mutex_, as all below
  std::shared_ptr<EngineCall> running_;
  Reports reports_;
  bool stopping_ = false;
  bool wake_sent_ = false;
  std::thread thread_;
};

}  // namespace foretoken
