#include "engine/engine.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "engine/initialise.h"
#include "engine/state.h"
#include "model/checkpoint.h"

namespace foretoken {

Engine::Engine(std::unique_ptr<State> state) : state_(std::move(state)) {}
Engine::~Engine() = default;

std::unique_ptr<Engine> Engine::open(const std::string& directory, const EngineOptions& options) {
  const Checkpoint checkpoint = Checkpoint::open(directory);
  auto state = std::make_unique<State>(checkpoint.config(), options);
  state->config_json = checkpoint.config_json();
  state->directory = checkpoint.directory().string();
  state->make_masters();
  std::vector<float> rows;
  for (std::size_t i = 0; i < state->parameters.specs.size(); ++i) {
    const ParameterSpec& spec = state->parameters.specs[i];
    const View master = state->current.masters[i];
    // A block of rows at a time: a large embedding need not exist twice.
    const std::int64_t step = std::max<std::int64_t>(1, (std::int64_t{4} << 20) / spec.cols());
    for (std::int64_t row = 0; row < spec.rows(); row += step) {
      const std::int64_t count = std::min(step, spec.rows() - row);
      rows.resize(static_cast<std::size_t>(count * spec.cols()));
      if (!checkpoint.read_rows(i, row, count, rows.data())) checkpoint.fail_non_finite(i);
      upload_floats(*state->backend, rows, master.slice_rows(row, count));
    }
  }
  state->current.stale = true;
  return std::unique_ptr<Engine>(new Engine(std::move(state)));
}

std::unique_ptr<Engine> Engine::create(const std::string& config, const Initialisation& initialisation,
                                       const EngineOptions& options) {
  for (const double value : {initialisation.embedding, initialisation.head, initialisation.projection,
                             initialisation.output_projection})
    if (!std::isfinite(value)) fail(ErrorCode::InvalidArgument, "a standard deviation of the initialisation is not finite");
  auto state = std::make_unique<State>(parse_config(config, "config"), options);
  state->make_masters();
  std::vector<float> values;
  for (std::size_t i = 0; i < state->parameters.specs.size(); ++i) {
    initialise(state->config, state->parameters.specs[i], static_cast<std::uint32_t>(i), initialisation, values);
    upload_floats(*state->backend, values, state->current.masters[i]);
  }
  state->current.stale = true;
  return std::unique_ptr<Engine>(new Engine(std::move(state)));
}

const ModelConfig& Engine::config() const { return state_->config; }
std::string Engine::device() const { return state_->backend->name(); }
std::string Engine::device_description() const { return state_->backend->description(); }

std::vector<ParameterInfo> Engine::parameters() const {
  std::vector<ParameterInfo> result;
  for (std::size_t i = 0; i < state_->parameters.specs.size(); ++i) {
    const ParameterSpec& spec = state_->parameters.specs[i];
    result.push_back({spec.name, spec.shape, state_->current.masters[i].dtype});
  }
  return result;
}

std::vector<float> Engine::read(const std::string& name, TensorKind kind) {
  State& state = *state_;
  const int index = state.parameters.find(name);
  const ParameterStore* store = &state.current.masters;
  switch (kind) {
    case TensorKind::Weight: break;
    case TensorKind::Gradient:
      if (!state.gradients) fail(ErrorCode::InvalidArgument, "there are no gradients: call accumulate() first");
      store = &state.gradients;
      break;
    case TensorKind::Reference:
      if (!state.reference) fail(ErrorCode::InvalidArgument, "there are no reference weights: call keepReference() first");
      store = &state.reference->masters;
      break;
    case TensorKind::Average:
      if (!state.average) fail(ErrorCode::InvalidArgument, "there are no average weights: call updateAverage(tau) first");
      store = &state.average->masters;
      break;
  }
  return download_floats(*state.backend, (*store)[index]);
}

void Engine::write(const std::string& name, const std::vector<float>& values) {
  State& state = *state_;
  const View master = state.current.masters[state.parameters.find(name)];
  if (static_cast<std::int64_t>(values.size()) != master.elements())
    fail(ErrorCode::InvalidArgument, name, " has ", master.elements(), " elements, not ", values.size());
  for (const float value : values)
    if (!std::isfinite(value)) fail(ErrorCode::NonFinite, "a value written to ", name, " is not a finite number");
  upload_floats(*state.backend, values, master);
  state.weights_changed();
}

void Engine::keep_reference() {
  state_->reference.reset();
  state_->reference = state_->copy_of_current("reference weights", state_->matrix_dtype());
}

void Engine::update_average(double tau) {
  State& state = *state_;
  if (!(tau >= 0 && tau <= 1)) fail(ErrorCode::InvalidArgument, "tau must lie in [0, 1], not ", tau);
  if (!state.average) {
    // Always in full precision: what tau = 0.999 adds is below the resolution of bfloat16, and rounding would lose it.
    state.average = state.copy_of_current("average weights", state.vector_dtype());
    return;
  }
  for (std::size_t i = 0; i < state.average->masters.count(); ++i) {
    const View average = state.average->masters[i];
    View current = state.current.masters[i];
    if (current.dtype != average.dtype) {
      const View widened(state.work.reserve(static_cast<std::size_t>(average.elements()) * size_of(average.dtype)),
                         average.dtype, average.rows, average.cols);
      state.backend->convert(current, widened);
      current = widened;
    }
    state.backend->average(average, current, tau);
  }
  state.average->stale = true;
}

void Engine::set_token_bytes(std::vector<std::uint8_t> bytes, std::vector<std::int64_t> offsets) {
  if (offsets.size() < 2) fail(ErrorCode::InvalidArgument, "the token table needs an offset for each token and one more");
  if (static_cast<std::int64_t>(offsets.size()) - 1 > state_->config.vocab_size)
    fail(ErrorCode::InvalidArgument, "the token table has ", offsets.size() - 1, " tokens, the model only ",
         state_->config.vocab_size);
  if (offsets.front() != 0 || offsets.back() != static_cast<std::int64_t>(bytes.size()) ||
      !std::is_sorted(offsets.begin(), offsets.end()))
    fail(ErrorCode::InvalidArgument, "the token table's offsets must rise from 0 to its ", bytes.size(), " bytes");
  state_->token_bytes = std::move(bytes);
  state_->token_offsets = std::move(offsets);
}

std::size_t Engine::memory_held() const { return state_->budget.held() + state_->backend->scratch_bytes(); }

}  // namespace foretoken
