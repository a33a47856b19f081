#include "engine/state.h"

#include <algorithm>
#include <charconv>

#include "backend/cpu/cpu_backend.h"
#include "backend/cuda_library.h"
#include "core/error.h"

namespace foretoken {

namespace {

constexpr const char* kDevices = "device must be \"auto\", \"cpu\", \"reference\", \"cuda\" or \"cuda:N\", not \"";

/// N of "cuda:N"; −1 for "cuda", the first GPU that can be used.
int cuda_index(const std::string& device) {
  if (device == "cuda") return -1;
  int index = 0;
  const char* const end = device.data() + device.size();
  const auto [stop, error] = std::from_chars(device.data() + std::min<std::size_t>(5, device.size()), end, index);
  if (!device.starts_with("cuda:") || error != std::errc() || stop != end || index < 0)
    fail(ErrorCode::InvalidArgument, kDevices, device, '"');
  return index;
}

std::unique_ptr<Backend> make_backend(const EngineOptions& options) {
  if (options.dtype != DType::Float32 && options.dtype != DType::BFloat16)
    fail(ErrorCode::InvalidArgument, "dtype must be float32 or bfloat16, not ", name_of(options.dtype));
  if (options.device == "reference") return make_reference_backend();
  // Which of the two "auto" is has been found out before, in a process that a driver may end: lib/engine/choose-device.ts.
  if (options.device == "cpu" || (options.device == "auto" && options.cuda_library.empty()))
    return make_cpu_backend({.dtype = options.dtype, .threads = options.threads});
  if (options.device != "auto" && !options.device.starts_with("cuda"))
    fail(ErrorCode::InvalidArgument, kDevices, options.device, '"');
  const int index = options.device == "auto" ? -1 : cuda_index(options.device);
  if (options.cuda_library.empty())
    fail(ErrorCode::DeviceUnavailable, "device \"", options.device, "\": foretoken's CUDA library is not here; use \"cpu\" or \"auto\"");
  return make_cuda_backend(options.cuda_library, index, options.dtype, options.allow_tf32);
}

}  // namespace

Engine::State::State(ModelConfig model_config, const EngineOptions& engine_options)
    : options(engine_options), config(std::move(model_config)), backend(make_backend(options)),
      budget(options.memory_limit > 0 ? options.memory_limit : backend->available_memory(), [this] { release_kept(); }),
      parameters(config),
      head(*backend, config), work(*backend, budget) {
  if (options.batch_tokens < 1) fail(ErrorCode::InvalidArgument, "batchTokens must be at least 1");
}

DType Engine::State::matrix_dtype() const {
  return options.bfloat16_state && vector_dtype() == DType::Float32 ? DType::BFloat16 : vector_dtype();
}

void Engine::State::make_masters() {
  budget.hold("weights", ParameterStore::bytes_for(parameters.specs, matrix_dtype(), vector_dtype()) +
                             Weights::bytes_for(*backend, config, false));
  current.masters = ParameterStore(*backend, parameters.specs, matrix_dtype(), vector_dtype());
}

WeightSet Engine::State::copy_of_current(const char* purpose, DType matrices) {
  budget.hold(purpose, ParameterStore::bytes_for(parameters.specs, matrices, vector_dtype()) +
                           Weights::bytes_for(*backend, config, false));
  WeightSet copy;
  copy.masters = ParameterStore(*backend, parameters.specs, matrices, vector_dtype());
  for (std::size_t i = 0; i < copy.masters.count(); ++i) backend->convert(current.masters[i], copy.masters[i]);
  copy.stale = true;
  return copy;
}

void Engine::State::weights_changed() {
  current.stale = true;
  kept.forget();
}

KeptActivations::Extent Engine::State::keepable(const KeptActivations::Extent& wanted, std::size_t others) const {
  return KeptActivations::fitting(*backend, config, wanted, (budget.limit() - std::min(budget.limit(), others)) / 2);
}

void Engine::State::release_kept() {
  kept.release();
  budget.hold(kKeptPurpose, 0);
}

const Weights& Engine::State::weights(WeightsKind kind) {
  WeightSet* set = &current;
  if (kind == WeightsKind::Reference) {
    if (!reference) fail(ErrorCode::InvalidArgument, "there are no reference weights: call keepReference() first");
    set = &*reference;
  } else if (kind == WeightsKind::Average) {
    if (!average) fail(ErrorCode::InvalidArgument, "there are no average weights: call updateAverage(tau) first");
    set = &*average;
  }
  if (!set->packed) {
    set->packed = std::make_unique<Weights>(*backend, config, parameters, set->masters, false);
  } else if (set->stale) {
    set->packed->refresh();
  }
  set->stale = false;
  return *set->packed;
}

const Weights& Engine::State::trainable_weights() {
  if (!current.packed || !current.packed->trainable()) {
    budget.hold("weights", ParameterStore::bytes_for(parameters.specs, matrix_dtype(), vector_dtype()) +
                               Weights::bytes_for(*backend, config, true));
    current.packed.reset();
    current.packed = std::make_unique<Weights>(*backend, config, parameters, current.masters, true);
    current.stale = false;
  }
  return weights(WeightsKind::Current);
}

void Engine::State::make_gradients() {
  if (gradients) return;
  budget.hold("gradients", ParameterStore::bytes_for(parameters.specs, vector_dtype(), vector_dtype()));
  gradients = ParameterStore(*backend, parameters.specs, vector_dtype(), vector_dtype());
  gradients.fill_zero(*backend);
  gradients_empty = true;
}

void Engine::State::make_moments() {
  if (m) return;
  budget.hold("optimizer", 2 * ParameterStore::bytes_for(parameters.specs, matrix_dtype(), vector_dtype()));
  m = ParameterStore(*backend, parameters.specs, matrix_dtype(), vector_dtype());
  v = ParameterStore(*backend, parameters.specs, matrix_dtype(), vector_dtype());
  m.fill_zero(*backend);
  v.fill_zero(*backend);
}

Decoder& Engine::State::decoder_for(const TokenForest& forest, std::int64_t extra_positions) {
  if (forest.segments().empty()) fail(ErrorCode::InvalidArgument, "the forest is empty");
  forest.validate(config.vocab_size, config.max_position_embeddings);
  std::int64_t longest = 1;
  for (const Segment& segment : forest.segments())
    longest = std::max(longest, std::int64_t{segment.start_position} + segment.length);
  longest += extra_positions;
  if (longest > config.max_position_embeddings)
    fail(ErrorCode::InvalidArgument, "the longest path with the tokens to be sampled has ", longest,
         " positions, beyond the model's ", config.max_position_embeddings);
  if (!decoder || decoder->positions() < longest) {
    budget.hold("RoPE table", rope_table_bytes(longest));
    decoder = std::make_unique<Decoder>(*backend, config, rope_table_positions(longest));
  }
  return *decoder;
}

// Doubling keeps the number of rebuilds small; a table's rows do not depend on its length.
std::int64_t Engine::State::rope_table_positions(std::int64_t longest) const {
  return std::min(config.max_position_embeddings, std::max<std::int64_t>(1024, 2 * longest));
}

std::size_t Engine::State::rope_table_bytes(std::int64_t longest) const {
  return static_cast<std::size_t>(rope_table_positions(longest) * config.head_dim) * size_of(vector_dtype());
}

std::vector<double> download_values(Backend& backend, View view) {
  const auto count = static_cast<std::size_t>(view.elements());
  if (view.dtype == DType::Float64) {
    std::vector<double> values(count);
    if (count) backend.download(values.data(), view.data, count * sizeof(double));
    return values;
  }
  const std::vector<float> values = download_floats(backend, view);
  return {values.begin(), values.end()};
}

std::vector<float> download_floats(Backend& backend, View view) {
  const auto count = static_cast<std::size_t>(view.elements());
  std::vector<float> values(count);
  if (count == 0) return values;
  switch (view.dtype) {
    case DType::Float32: backend.download(values.data(), view.data, count * sizeof(float)); break;
    case DType::Float64: {
      const std::vector<double> wide = download_values(backend, view);
      std::transform(wide.begin(), wide.end(), values.begin(), [](double value) { return static_cast<float>(value); });
      break;
    }
    case DType::BFloat16: {
      std::vector<BFloat16> narrow(count);
      backend.download(narrow.data(), view.data, count * sizeof(BFloat16));
      std::transform(narrow.begin(), narrow.end(), values.begin(), [](BFloat16 value) { return static_cast<float>(value); });
      break;
    }
    case DType::Float16: invariant(false, "nothing is computed in float16");
  }
  return values;
}

void upload_values(Backend& backend, std::span<const double> values, View view) {
  if (values.empty()) return;
  if (view.dtype == DType::Float64) {
    backend.upload(view.data, values.data(), values.size_bytes());
    return;
  }
  const std::vector<float> narrow(values.begin(), values.end());
  upload_floats(backend, narrow, view);
}

void upload_floats(Backend& backend, std::span<const float> values, View view) {
  if (values.empty()) return;
  switch (view.dtype) {
    case DType::Float32: backend.upload(view.data, values.data(), values.size_bytes()); break;
    case DType::Float64: {
      const std::vector<double> wide(values.begin(), values.end());
      backend.upload(view.data, wide.data(), wide.size() * sizeof(double));
      break;
    }
    case DType::BFloat16: {
      std::vector<BFloat16> narrow(values.size());
      std::transform(values.begin(), values.end(), narrow.begin(), [](float value) { return BFloat16(value); });
      backend.upload(view.data, narrow.data(), narrow.size() * sizeof(BFloat16));
      break;
    }
    case DType::Float16: invariant(false, "nothing is computed in float16");
  }
}

}  // namespace foretoken
