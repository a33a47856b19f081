#include "node/engine_thread.h"

#include <algorithm>
#include <utility>

namespace foretoken {

namespace {

const char* const kDisposed = "the engine was disposed before this call ended";

}  // namespace

EngineThread::EngineThread(std::function<void()> wake) : wake_(std::move(wake)), thread_([this] { main(); }) {}

EngineThread::~EngineThread() {
  stop();
  join();
}

bool EngineThread::wants_wake() { return !std::exchange(wake_sent_, true); }

void EngineThread::submit(std::shared_ptr<EngineCall> call) {
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) fail(ErrorCode::Disposed, "the engine is disposed");
    queue_.push_back(std::move(call));
  }
  work_.notify_one();
}

void EngineThread::abort(const std::shared_ptr<EngineCall>& call) {
  bool wake = false;
  {
    const std::lock_guard lock(mutex_);
    call->aborted_ = true;
    const auto queued = std::find(queue_.begin(), queue_.end(), call);
    if (queued != queue_.end()) {
      call->failure_ = Failure{ErrorCode::Aborted, "the call was aborted before it began"};
      reports_.finished.push_back(call);
      queue_.erase(queued);
      wake = wants_wake();
    }
  }
  if (wake) wake_();
}

void EngineThread::stop() {
  bool wake = false;
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return;
    stopping_ = true;
    if (running_) running_->aborted_ = true;
    for (const auto& call : queue_) {
      call->failure_ = Failure{ErrorCode::Disposed, kDisposed};
      reports_.finished.push_back(call);
    }
    wake = !queue_.empty() && wants_wake();
    queue_.clear();
  }
  work_.notify_one();
  if (wake) wake_();
}

void EngineThread::join() {
  if (thread_.joinable()) thread_.join();
}

EngineThread::Reports EngineThread::take_reports() {
  const std::lock_guard lock(mutex_);
  wake_sent_ = false;
  Reports taken = std::move(reports_);
  reports_ = {};
  reports_.memory_held = taken.memory_held;
  reports_.ended = taken.ended;
  return taken;
}

void EngineThread::main() {
  std::unique_ptr<Engine> engine;
  for (;;) {
    std::shared_ptr<EngineCall> call;
    {
      std::unique_lock lock(mutex_);
      work_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
      if (stopping_) break;
      call = std::move(queue_.front());
      queue_.pop_front();
      running_ = call;
    }
    run(call, engine);
    const std::size_t memory = engine ? engine->memory_held() : 0;
    bool wake = false;
    {
      const std::lock_guard lock(mutex_);
      running_.reset();
      // An abort that the caller did not ask for is the end of the engine.
      if (stopping_ && call->failure_ && call->failure_->code == ErrorCode::Aborted)
        call->failure_ = Failure{ErrorCode::Disposed, kDisposed};
      reports_.memory_held = memory;
      reports_.finished.push_back(std::move(call));
      wake = wants_wake();
    }
    if (wake) wake_();
  }
  engine.reset();
  bool wake = false;
  {
    const std::lock_guard lock(mutex_);
    reports_.memory_held = 0;
    reports_.ended = true;
    wake = wants_wake();
  }
  if (wake) wake_();
}

void EngineThread::run(const std::shared_ptr<EngineCall>& call, std::unique_ptr<Engine>& engine) {
  Control control;
  control.aborted = &call->aborted_;
  control.progress = [this, &call](std::int64_t done, std::int64_t total) {
    bool wake = false;
    {
      const std::lock_guard lock(mutex_);
      reports_.progress = Progress{call, done, total};
      wake = wants_wake();
    }
    if (wake) wake_();
  };
  try {
    call->run(engine, control);
  } catch (...) {
    call->failure_ = current_failure();
  }
}

}  // namespace foretoken
