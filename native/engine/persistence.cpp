#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>

#include "core/atomic_directory.h"
#include "core/error.h"
#include "core/json.h"
#include "engine/state.h"
#include "model/checkpoint.h"
#include "model/safetensors.h"

namespace foretoken {

void Engine::save(const std::string& directory, DType dtype, std::size_t max_shard_bytes, const Control& control) {
  State& state = *state_;
  SaveOptions options;
  options.dtype = dtype;
  if (max_shard_bytes > 0) options.max_shard_bytes = static_cast<std::int64_t>(max_shard_bytes);
  options.config_json = state.config_json;
  options.companions = state.directory;
  save_checkpoint(directory, state.config, options,
                  [&](const ParameterSpec& spec, std::int64_t begin, std::int64_t count, float* out) {
                    control.check();
                    const View rows = state.current.masters[state.parameters.find(spec.name)].slice_rows(begin, count);
                    const std::vector<float> values = download_floats(*state.backend, rows);
                    std::copy(values.begin(), values.end(), out);
                  });
}

namespace {

// The training state is a directory of safetensors in float32, which holds float32 and bfloat16 without loss, and a
// small JSON file that counts what is inside.
constexpr const char* kStateFile = "training_state.json";

struct Part {
  std::string name;
  const ParameterStore* store;
};

std::vector<Part> parts_of(const Engine::State& state) {
  std::vector<Part> parts{{"weight", &state.current.masters}};
  if (state.m) {
    parts.push_back({"m", &state.m});
    parts.push_back({"v", &state.v});
  }
  if (state.gradients && !state.gradients_empty) parts.push_back({"gradient", &state.gradients});
  if (state.reference) parts.push_back({"reference", &state.reference->masters});
  if (state.average) parts.push_back({"average", &state.average->masters});
  return parts;
}

bool is_state_file(const std::string& name) {
  return name == kStateFile || name == "model.safetensors.index.json" ||
         (name.starts_with("model") && name.ends_with(".safetensors"));
}

}  // namespace

void Engine::save_training_state(const std::string& directory) {
  State& state = *state_;
  if (state.vector_dtype() == DType::Float64)
    fail(ErrorCode::InvalidArgument, "the reference device has no training state on disk: float32 would not hold its bits");
  const std::vector<Part> parts = parts_of(state);
  std::vector<TensorToWrite> tensors;
  std::vector<View> views;
  for (const Part& part : parts)
    for (std::size_t i = 0; i < part.store->count(); ++i) {
      tensors.push_back({part.name + "/" + state.parameters.specs[i].name, state.parameters.specs[i].shape});
      views.push_back((*part.store)[i]);
    }
  AtomicDirectory target(directory, is_state_file);
  write_tensor_files(target, tensors, DType::Float32, SaveOptions{}.max_shard_bytes,
                     [&](std::size_t index, std::int64_t begin, std::int64_t count, float* out) {
                       const std::vector<float> values =
                           download_floats(*state.backend, views[index].slice_rows(begin, count));
                       std::copy(values.begin(), values.end(), out);
                     });
  std::string text = "{\"format\": 1, \"updates\": " + std::to_string(state.updates) + ", \"matrices\": \"" +
                     name_of(state.matrix_dtype()) + "\", \"parts\": [";
  for (std::size_t i = 0; i < parts.size(); ++i) text += (i ? ", \"" : "\"") + parts[i].name + "\"";
  target.write(kStateFile, text + "]}\n");
  target.commit();
}

void Engine::load_training_state(const std::string& directory) {
  State& state = *state_;
  const std::filesystem::path file = std::filesystem::path(directory) / kStateFile;
  const MappedFile mapped(file);
  const json::Value description = json::parse(mapped.text(), file.string(), ErrorCode::InvalidCheckpoint);
  const auto malformed = [&](const char* name) {
    fail(ErrorCode::InvalidCheckpoint, file.string(), ": \"", name, "\" is missing or malformed");
  };
  const auto integer = [&](const char* name) {
    const json::Value* value = description.find(name);
    const json::Number* number = value ? value->as_number() : nullptr;
    if (!number || !number->integer || *number->integer < 0) malformed(name);
    return *number->integer;
  };
  if (integer("format") != 1)
    fail(ErrorCode::InvalidCheckpoint, file.string(), ": written by another version of foretoken");
  const json::Value* matrices = description.find("matrices");
  if (!matrices || !matrices->as_string()) malformed("matrices");
  if (*matrices->as_string() != name_of(state.matrix_dtype()))
    fail(ErrorCode::InvalidCheckpoint, file.string(), ": the state holds ", *matrices->as_string(),
         " weights, this engine ", name_of(state.matrix_dtype()), "; open it with the same stateDtype and device");
  const std::int64_t updates = integer("updates");
  const json::Value* parts = description.find("parts");
  if (!parts || !parts->as_array()) malformed("parts");
  std::vector<std::string> names;
  for (const json::Value& part : *parts->as_array()) {
    if (!part.as_string()) malformed("parts");
    names.push_back(*part.as_string());
  }
  const auto has = [&](const char* name) { return std::find(names.begin(), names.end(), name) != names.end(); };

  // Everything is checked before anything is overwritten.
  const TensorFiles files{std::filesystem::path(directory)};
  const auto tensor = [&](const std::string& part, std::size_t i) -> const StoredTensor& {
    const std::string name = part + "/" + state.parameters.specs[i].name;
    const StoredTensor* stored = files.find(name);
    if (!stored) fail(ErrorCode::InvalidCheckpoint, directory, ": tensor ", name, " is missing");
    if (stored->shape != state.parameters.specs[i].shape || stored->dtype != DType::Float32)
      fail(ErrorCode::InvalidCheckpoint, directory, ": tensor ", name, " does not fit this model");
    return *stored;
  };
  for (const std::string& part : names)
    for (std::size_t i = 0; i < state.parameters.specs.size(); ++i) tensor(part, i);
  if (!has("weight") || has("m") != has("v")) fail(ErrorCode::InvalidCheckpoint, file.string(), ": parts are missing");

  const auto load = [&](const char* part, const ParameterStore& store) {
    std::vector<float> values;
    for (std::size_t i = 0; i < store.count(); ++i) {
      const StoredTensor& stored = tensor(part, i);
      values.resize(static_cast<std::size_t>(state.parameters.specs[i].elements()));
      if (!read_elements(stored, 0, static_cast<std::int64_t>(values.size()), values.data()))
        fail(ErrorCode::NonFinite, directory, ": tensor ", stored.name, " holds NaN or infinity");
      upload_floats(*state.backend, values, store[i]);
    }
  };
  load("weight", state.current.masters);
  state.weights_changed();
  if (has("m")) {
    state.make_moments();
    load("m", state.m);
    load("v", state.v);
  } else if (state.m) {
    state.m.fill_zero(*state.backend);
    state.v.fill_zero(*state.backend);
  }
  zero_gradients();
  if (has("gradient")) {
    state.make_gradients();
    load("gradient", state.gradients);
    state.gradients_empty = false;
  }
  const auto load_copy = [&](const char* part, const char* purpose, DType matrices, std::optional<WeightSet>& set) {
    set.reset();
    state.budget.hold(purpose, 0);
    if (!has(part)) return;
    set = state.copy_of_current(purpose, matrices);
    load(part, set->masters);
  };
  load_copy("reference", "reference weights", state.matrix_dtype(), state.reference);
  load_copy("average", "average weights", state.vector_dtype(), state.average);
  state.updates = updates;
}

}  // namespace foretoken
