#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "node/engine_thread.h"
#include "node/napi_setup.h"

namespace foretoken {

/// An EngineCall with a result that JavaScript can be given.
class AnsweredCall : public EngineCall {
 public:
  virtual Napi::Value answer(Napi::Env env) = 0;  // on JavaScript's thread, once, after run() has succeeded
};

/// What JavaScript holds of an engine: the thread, the promises that wait for it and the way back from it.
///
/// Everything here runs on the JavaScript thread that made the handle. It goes in one of four ways, each of which ends
/// in close(): dispose(), the garbage collection of the object, the end of the environment (the end of the program,
/// worker.terminate()), where the engine's thread must be gone before Node tears down what it would call into, and
/// process.exit(), which runs none of Node's hooks but the destructors of static objects beside running threads.
class EngineHandle : public std::enable_shared_from_this<EngineHandle> {
 public:
  /// Prepares an environment in which handles will be made.
  static void initialise(Napi::Env env);

  /// A new object with a running thread and no engine yet.
  static Napi::Object create(Napi::Env env);

  /// The handle inside an object that create() made. Throws InvalidArgument for any other value.
  static std::shared_ptr<EngineHandle> from(const Napi::Value& value);

  EngineHandle(Napi::Env env);
  ~EngineHandle();

  /// Ends all engines of this environment, at the end of its process. Blocks until their running calls have stopped.
  static void close_all(Napi::Env env);

  /// Queues a call. `id` names it for abort(); `on_progress` (may be empty) gets (done, total).
  Napi::Promise submit(const Napi::Value& object, std::uint32_t id, std::shared_ptr<AnsweredCall> call,
                       Napi::Function on_progress);

  /// Aborts the call of that id; does nothing when it has already ended.
  void abort(std::uint32_t id);

  /// Resolves when the engine is destroyed and its thread has ended.
  Napi::Promise dispose(const Napi::Value& object);

 private:
  struct Pending {
    std::shared_ptr<AnsweredCall> call;
    Napi::Promise::Deferred deferred;
    Napi::FunctionReference on_progress;
    Napi::ObjectReference object;  // an engine with a call under way is not garbage
  };
  struct Disposal {
    Napi::Promise::Deferred deferred;
    Napi::ObjectReference object;  // nor is one whose end somebody waits for
  };
  using Context = std::shared_ptr<EngineHandle>;
  static void on_wake(Napi::Env env, Napi::Function, Context* context, void*);
  using Waker = Napi::TypedThreadSafeFunction<Context, void, on_wake>;

  struct Live {
    std::unordered_set<EngineHandle*> handles;  // those of one environment that are not closed
  };

  void start();
  void deliver();
  void settle(Pending& pending);
  void hold_process_open();
  void account(std::size_t bytes);
  void close();
  static void on_environment_end(void* handle);

  Napi::Env env_;
  Waker waker_;
  std::optional<EngineThread> thread_;
  std::unordered_map<std::uint32_t, Pending> pending_;
  std::vector<Disposal> disposals_;
  std::int64_t accounted_ = 0;
  bool holds_process_ = false;
  bool disposing_ = false;
  bool closed_ = false;
};

}  // namespace foretoken
