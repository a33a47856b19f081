#pragma once

#include <string>
#include <vector>

#include "engine/engine.h"
#include "node/napi_setup.h"

namespace foretoken {

// What lib/engine/native-engine.ts declares, read into the core's own types. Everything is copied, on JavaScript's
// thread, before the call is queued. A wrong type throws InvalidArgument.

EngineOptions read_engine_options(const Napi::Value& value);
Initialisation read_initialisation(const Napi::Value& value);
TokenForest read_forest(const Napi::Value& value);
ScoreOptions read_score_options(const Napi::Value& value);
SampleOptions read_sample_options(const Napi::Value& value);
std::vector<LossTerm> read_loss_terms(const Napi::Value& value);
AccumulateOptions read_accumulate_options(const Napi::Value& value);
StepOptions read_step_options(const Napi::Value& value);
MemoryPlanOptions read_memory_plan_options(const Napi::Value& value);

struct SaveRequest {
  DType dtype = DType::Float32;
  std::size_t max_shard_bytes = 0;
};
SaveRequest read_save_options(const Napi::Value& value);

struct TokenBytes {
  std::vector<std::uint8_t> bytes;
  std::vector<std::int64_t> offsets;
};
TokenBytes read_token_bytes(const Napi::Value& value);

TensorKind read_tensor_kind(const Napi::Value& value);
std::vector<float> read_floats(const Napi::Value& value, const char* what);
std::string read_string(const Napi::Value& value, const char* what);
double read_number(const Napi::Value& value, const char* what);

}  // namespace foretoken
