#include "node/engine_handle.h"

#include <algorithm>

#include "node/js_error.h"

namespace foretoken {

namespace {

// Any object could be passed where a handle is expected; only ours carry this tag.
constexpr napi_type_tag kEngineTag = {0x8f1c6a0b57de4c21, 0xa3e90d4472b86f15};

}  // namespace

void EngineHandle::initialise(Napi::Env env) { env.SetInstanceData(new Live); }

Napi::Object EngineHandle::create(Napi::Env env) {
  const Napi::Object object = Napi::Object::New(env);
  auto* owner = new std::shared_ptr<EngineHandle>(std::make_shared<EngineHandle>(env));
  const auto finalize = [](napi_env, void* data, void*) {
    auto* handle = static_cast<std::shared_ptr<EngineHandle>*>(data);
    (*handle)->close();
    delete handle;
  };
  if (napi_wrap(env, object, owner, finalize, nullptr, nullptr) != napi_ok) {
    delete owner;
    throw Napi::Error::New(env);
  }
  object.TypeTag(&kEngineTag);
  (*owner)->start();
  return object;
}

std::shared_ptr<EngineHandle> EngineHandle::from(const Napi::Value& value) {
  void* data = nullptr;
  if (!value.IsObject() || !value.As<Napi::Object>().CheckTypeTag(&kEngineTag) ||
      napi_unwrap(value.Env(), value, &data) != napi_ok)
    fail(ErrorCode::InvalidArgument, "the first argument is not an engine handle");
  return *static_cast<std::shared_ptr<EngineHandle>*>(data);
}

void EngineHandle::close_all(Napi::Env env) {
  const std::unordered_set<EngineHandle*> handles = env.GetInstanceData<Live>()->handles;
  for (EngineHandle* handle : handles) handle->close();
}

EngineHandle::EngineHandle(Napi::Env env) : env_(env) {}

EngineHandle::~EngineHandle() = default;

void EngineHandle::start() {
  // The thread-safe function keeps the handle alive until Node has finished with it, in whatever order Node finalizes.
  waker_ = Waker::New(env_, "foretoken engine", 0, 1, new Context(shared_from_this()),
                      [](Napi::Env, void*, Context* context) { delete context; }, static_cast<void*>(nullptr));
  waker_.Unref(env_);
  // Hooks run last in, first out: this one before the hook that takes the thread-safe function down.
  napi_add_env_cleanup_hook(env_, on_environment_end, this);
  thread_.emplace([waker = waker_]() mutable { waker.NonBlockingCall(); });
  env_.GetInstanceData<Live>()->handles.insert(this);
}

Napi::Promise EngineHandle::submit(const Napi::Value& object, std::uint32_t id, std::shared_ptr<AnsweredCall> call,
                                   Napi::Function on_progress) {
  if (disposing_ || closed_) fail(ErrorCode::Disposed, "the engine is disposed");
  if (pending_.contains(id)) fail(ErrorCode::InvalidArgument, "call ", id, " is already under way");
  Pending pending{call, Napi::Promise::Deferred::New(env_), {}, Napi::Persistent(object.As<Napi::Object>())};
  if (!on_progress.IsEmpty()) pending.on_progress = Napi::Persistent(on_progress);
  const Napi::Promise promise = pending.deferred.Promise();
  pending_.emplace(id, std::move(pending));
  hold_process_open();
  thread_->submit(std::move(call));
  return promise;
}

void EngineHandle::abort(std::uint32_t id) {
  const auto found = pending_.find(id);
  if (found != pending_.end() && !closed_) thread_->abort(found->second.call);
}

Napi::Promise EngineHandle::dispose(const Napi::Value& object) {
  const auto deferred = Napi::Promise::Deferred::New(env_);
  if (closed_) {
    deferred.Resolve(env_.Undefined());
    return deferred.Promise();
  }
  disposals_.push_back({deferred, Napi::Persistent(object.As<Napi::Object>())});
  disposing_ = true;
  hold_process_open();
  thread_->stop();
  return deferred.Promise();
}

void EngineHandle::on_wake(Napi::Env env, Napi::Function, Context* context, void*) {
  if (static_cast<napi_env>(env) == nullptr) return;  // the environment is on its way out
  const Context alive = *context;
  alive->deliver();
}

void EngineHandle::deliver() {
  if (closed_) return;
  EngineThread::Reports reports = thread_->take_reports();
  const Napi::HandleScope scope(env_);
  account(reports.memory_held);
  if (reports.progress) {
    for (auto& [id, pending] : pending_) {
      if (pending.call != reports.progress->call) continue;
      if (!pending.on_progress.IsEmpty())
        pending.on_progress.Call({Napi::Number::New(env_, static_cast<double>(reports.progress->done)),
                                  Napi::Number::New(env_, static_cast<double>(reports.progress->total))});
      break;
    }
  }
  for (const auto& call : reports.finished) {
    const auto found = std::find_if(pending_.begin(), pending_.end(),
                                    [&](const auto& entry) { return entry.second.call == call; });
    if (found == pending_.end()) continue;
    Pending pending = std::move(found->second);
    pending_.erase(found);
    settle(pending);
  }
  if (reports.ended) {
    close();
    for (const Disposal& disposal : disposals_) disposal.deferred.Resolve(env_.Undefined());
    disposals_.clear();
  }
  hold_process_open();
}

void EngineHandle::settle(Pending& pending) {
  if (pending.call->failure()) {
    pending.deferred.Reject(to_js_error(env_, *pending.call->failure()).Value());
    return;
  }
  Napi::Value answer;
  try {
    answer = pending.call->answer(env_);
  } catch (const Napi::Error& error) {
    pending.deferred.Reject(error.Value());
    return;
  } catch (...) {
    pending.deferred.Reject(to_js_error(env_, current_failure()).Value());
    return;
  }
  pending.deferred.Resolve(answer);
}

/// The process stays while a promise waits, and may end while the engine is idle.
void EngineHandle::hold_process_open() {
  const bool wanted = !closed_ && (!pending_.empty() || !disposals_.empty());
  if (wanted == holds_process_ || closed_) return;
  holds_process_ = wanted;
  if (wanted) waker_.Ref(env_);
  else waker_.Unref(env_);
}

/// Tells V8 what hangs on the small object that it sees, so that forgotten engines are collected.
void EngineHandle::account(std::size_t bytes) {
  const auto held = static_cast<std::int64_t>(bytes);
  if (held == accounted_) return;
  Napi::MemoryManagement::AdjustExternalMemory(env_, held - accounted_);
  accounted_ = held;
}

void EngineHandle::close() {
  if (closed_ || !thread_) return;
  closed_ = true;
  thread_->stop();
  thread_->join();
  env_.GetInstanceData<Live>()->handles.erase(this);
  napi_remove_env_cleanup_hook(env_, on_environment_end, this);
  pending_.clear();
  account(0);
  waker_.Release();
}

void EngineHandle::on_environment_end(void* handle) {
  auto* self = static_cast<EngineHandle*>(handle);
  const Context alive = self->shared_from_this();
  self->close();
  self->disposals_.clear();
}

}  // namespace foretoken
