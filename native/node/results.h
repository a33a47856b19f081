#pragma once

#include <string>
#include <vector>

#include "engine/engine.h"
#include "node/napi_setup.h"

namespace foretoken {

// The core's results as the plain objects that lib/engine/native-engine.ts declares. Arrays are copied into memory of
// JavaScript's own: a few MB at most, and nothing then depends on when the garbage collector runs.

/// What never changes about an open engine.
struct EngineFacts {
  ModelConfig config;
  std::string device, description;
  std::vector<ParameterInfo> parameters;
};

/// The result of a call that has none.
struct Nothing {};

Napi::Value to_js(Napi::Env env, const Nothing&);
Napi::Value to_js(Napi::Env env, const EngineFacts& facts);
Napi::Value to_js(Napi::Env env, const ScoreResult& result);
Napi::Value to_js(Napi::Env env, const SampleResult& result);
Napi::Value to_js(Napi::Env env, const AccumulateResult& result);
Napi::Value to_js(Napi::Env env, const StepResult& result);
Napi::Value to_js(Napi::Env env, const std::vector<MemoryItem>& plan);
Napi::Value to_js(Napi::Env env, const std::vector<float>& values);

}  // namespace foretoken
