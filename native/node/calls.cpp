#include "node/calls.h"

#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "node/arguments.h"
#include "node/engine_handle.h"
#include "node/js_error.h"
#include "node/results.h"

namespace foretoken {

namespace {

using Info = Napi::CallbackInfo;
using EngineSlot = std::unique_ptr<Engine>;

template <typename Work>
class TypedCall : public AnsweredCall {
 public:
  explicit TypedCall(Work work) : work_(std::move(work)) {}
  void run(EngineSlot& engine, const Control& control) override { result_ = work_(engine, control); }
  Napi::Value answer(Napi::Env env) override { return to_js(env, *result_); }

 private:
  Work work_;
  std::optional<std::invoke_result_t<Work&, EngineSlot&, const Control&>> result_;
};

/// Every queued function begins with (handle, id, onProgress | undefined).
template <typename Work>
Napi::Value queue(EngineHandle& handle, const Info& info, Work work) {
  const auto id = static_cast<std::uint32_t>(read_number(info[1], "id"));
  const Napi::Function on_progress = info[2].IsFunction() ? info[2].As<Napi::Function>() : Napi::Function();
  return handle.submit(info[0], id, std::make_shared<TypedCall<Work>>(std::move(work)), on_progress);
}

/// The same for work on an open engine that has no result.
template <typename Work>
Napi::Value queue_action(EngineHandle& handle, const Info& info, Work work) {
  return queue(handle, info, [work = std::move(work)](EngineSlot& engine, const Control& control) mutable {
    invariant(engine != nullptr, "a call before the engine was opened");
    work(*engine, control);
    return Nothing{};
  });
}

/// The same for work on an open engine that has one.
template <typename Work>
Napi::Value queue_question(EngineHandle& handle, const Info& info, Work work) {
  return queue(handle, info, [work = std::move(work)](EngineSlot& engine, const Control& control) mutable {
    invariant(engine != nullptr, "a call before the engine was opened");
    return work(*engine, control);
  });
}

EngineFacts facts_of(const Engine& engine) {
  return {engine.config(), engine.device(), engine.device_description(), engine.parameters()};
}

Napi::Value create_handle(const Info& info) {
  try {
    return EngineHandle::create(info.Env());
  } catch (const Napi::Error&) {
    throw;
  } catch (...) {
    throw to_js_error(info.Env(), current_failure());
  }
}

Napi::Value open(EngineHandle& handle, const Info& info) {
  return queue(handle, info, [directory = read_string(info[3], "directory"), options = read_engine_options(info[4])](
                         EngineSlot& engine, const Control&) {
    invariant(engine == nullptr, "the handle has an engine already");
    engine = Engine::open(directory, options);
    return facts_of(*engine);
  });
}

Napi::Value create(EngineHandle& handle, const Info& info) {
  return queue(handle, info, [config = read_string(info[3], "config"), initialisation = read_initialisation(info[4]),
                      options = read_engine_options(info[5])](EngineSlot& engine, const Control&) {
    invariant(engine == nullptr, "the handle has an engine already");
    engine = Engine::create(config, initialisation, options);
    return facts_of(*engine);
  });
}

Napi::Value score(EngineHandle& handle, const Info& info) {
  return queue_question(handle, info, [forest = read_forest(info[3]), options = read_score_options(info[4])](
                                  Engine& engine, const Control& control) {
    return engine.score(forest, options, control);
  });
}

Napi::Value sample(EngineHandle& handle, const Info& info) {
  return queue_question(handle, info, [forest = read_forest(info[3]), options = read_sample_options(info[4])](
                                  Engine& engine, const Control& control) {
    return engine.sample(forest, options, control);
  });
}

Napi::Value accumulate(EngineHandle& handle, const Info& info) {
  return queue_question(handle, info, [forest = read_forest(info[3]), terms = read_loss_terms(info[4]),
                               options = read_accumulate_options(info[5])](Engine& engine, const Control& control) {
    return engine.accumulate(forest, terms, options, control);
  });
}

Napi::Value step(EngineHandle& handle, const Info& info) {
  return queue_question(handle, info, [options = read_step_options(info[3])](Engine& engine, const Control&) {
    return engine.step(options);
  });
}

Napi::Value zero_gradients(EngineHandle& handle, const Info& info) {
  return queue_action(handle, info, [](Engine& engine, const Control&) { engine.zero_gradients(); });
}

Napi::Value read(EngineHandle& handle, const Info& info) {
  return queue_question(handle, info, [name = read_string(info[3], "name"), kind = read_tensor_kind(info[4])](
                                  Engine& engine, const Control&) { return engine.read(name, kind); });
}

Napi::Value write(EngineHandle& handle, const Info& info) {
  return queue_action(handle, info, [name = read_string(info[3], "name"), values = read_floats(info[4], "values")](
                                Engine& engine, const Control&) { engine.write(name, values); });
}

Napi::Value keep_reference(EngineHandle& handle, const Info& info) {
  return queue_action(handle, info, [](Engine& engine, const Control&) { engine.keep_reference(); });
}

Napi::Value update_average(EngineHandle& handle, const Info& info) {
  return queue_action(handle, info, [tau = read_number(info[3], "tau")](Engine& engine, const Control&) {
    engine.update_average(tau);
  });
}

Napi::Value set_token_bytes(EngineHandle& handle, const Info& info) {
  return queue_action(handle, info, [table = read_token_bytes(info[3])](Engine& engine, const Control&) mutable {
    engine.set_token_bytes(std::move(table.bytes), std::move(table.offsets));
  });
}

Napi::Value save(EngineHandle& handle, const Info& info) {
  return queue_action(handle, info, [directory = read_string(info[3], "directory"),
                                     options = read_save_options(info[4])](Engine& engine, const Control& control) {
    engine.save(directory, options.dtype, options.max_shard_bytes, control);
  });
}

Napi::Value save_training_state(EngineHandle& handle, const Info& info) {
  return queue_action(handle, info, [directory = read_string(info[3], "directory")](Engine& engine, const Control&) {
    engine.save_training_state(directory);
  });
}

Napi::Value load_training_state(EngineHandle& handle, const Info& info) {
  return queue_action(handle, info, [directory = read_string(info[3], "directory")](Engine& engine, const Control&) {
    engine.load_training_state(directory);
  });
}

Napi::Value memory_plan(EngineHandle& handle, const Info& info) {
  return queue_question(handle, info, [options = read_memory_plan_options(info[3])](Engine& engine, const Control&) {
    return engine.memory_plan(options);
  });
}

Napi::Value abort(EngineHandle& handle, const Info& info) {
  handle.abort(static_cast<std::uint32_t>(read_number(info[1], "id")));
  return info.Env().Undefined();
}

Napi::Value dispose(EngineHandle& handle, const Info& info) { return handle.dispose(info[0]); }

/// A function of a handle, which is looked at before all other arguments. No C++ exception leaves without a code.
template <Napi::Value (*function)(EngineHandle&, const Info&)>
Napi::Value guarded(const Info& info) {
  try {
    const auto handle = EngineHandle::from(info[0]);
    return function(*handle, info);
  } catch (const Napi::Error&) {
    throw;
  } catch (...) {
    throw to_js_error(info.Env(), current_failure());
  }
}

}  // namespace

void export_calls(Napi::Env env, Napi::Object exports) {
  exports.Set("createHandle", Napi::Function::New<create_handle>(env));
  exports.Set("open", Napi::Function::New<guarded<open>>(env));
  exports.Set("create", Napi::Function::New<guarded<create>>(env));
  exports.Set("score", Napi::Function::New<guarded<score>>(env));
  exports.Set("sample", Napi::Function::New<guarded<sample>>(env));
  exports.Set("accumulate", Napi::Function::New<guarded<accumulate>>(env));
  exports.Set("step", Napi::Function::New<guarded<step>>(env));
  exports.Set("zeroGradients", Napi::Function::New<guarded<zero_gradients>>(env));
  exports.Set("read", Napi::Function::New<guarded<read>>(env));
  exports.Set("write", Napi::Function::New<guarded<write>>(env));
  exports.Set("keepReference", Napi::Function::New<guarded<keep_reference>>(env));
  exports.Set("updateAverage", Napi::Function::New<guarded<update_average>>(env));
  exports.Set("setTokenBytes", Napi::Function::New<guarded<set_token_bytes>>(env));
  exports.Set("save", Napi::Function::New<guarded<save>>(env));
  exports.Set("saveTrainingState", Napi::Function::New<guarded<save_training_state>>(env));
  exports.Set("loadTrainingState", Napi::Function::New<guarded<load_training_state>>(env));
  exports.Set("memoryPlan", Napi::Function::New<guarded<memory_plan>>(env));
  exports.Set("abort", Napi::Function::New<guarded<abort>>(env));
  exports.Set("dispose", Napi::Function::New<guarded<dispose>>(env));
}

}  // namespace foretoken
