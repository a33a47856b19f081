#include <algorithm>
#include <utility>

#include "engine/state.h"

namespace foretoken {

namespace {

// The library's code, thread stacks, the RoPE table, packed tables on the host and what malloc keeps: measured at 6 to
// 10 MB, whatever the model.
constexpr std::size_t kHostBytes = std::size_t{8} << 20;

/// What products of one layer, or of the head, will take from the backend beside their operands.
std::size_t training_scratch(const Engine::State& state) {
  const ModelConfig& config = state.config;
  const std::int64_t C = config.hidden_size, F = config.intermediate_size;
  std::size_t most = 0;
  for (const auto& [outputs, inputs] : {std::pair{config.qkv_width(), C}, {C, config.query_width()}, {2 * F, C}, {C, F},
                                        {config.vocab_size, C}})
    most = std::max(most, state.backend->linear_scratch_bytes(outputs, inputs));
  return most;
}

}  // namespace

std::vector<MemoryItem> Engine::memory_plan(const MemoryPlanOptions& options) const {
  const State& state = *state_;
  const auto& specs = state.parameters.specs;
  const DType matrices = state.matrix_dtype(), vectors = state.vector_dtype();
  const std::int64_t rows = options.training_tokens < 0 ? state.options.batch_tokens : options.training_tokens;
  const bool trains = rows > 0;
  // Once packed for training, weights stay so.
  const bool trainable = trains || (state.current.packed && state.current.packed->trainable());

  std::vector<MemoryItem> plan;
  plan.push_back({"weights", ParameterStore::bytes_for(specs, matrices, vectors) +
                                 Weights::bytes_for(*state.backend, state.config, trainable)});
  if (trains || state.gradients) plan.push_back({"gradients", ParameterStore::bytes_for(specs, vectors, vectors)});
  if (trains || state.m) plan.push_back({"optimizer", 2 * ParameterStore::bytes_for(specs, matrices, vectors)});
  for (const char* copy : {"reference weights", "average weights"}) {
    const auto held = state.budget.purposes().find(copy);
    if (held != state.budget.purposes().end() && held->second > 0) plan.push_back({copy, held->second});
  }
  const std::size_t training = trains ? training_bytes(state, rows) : 0;
  const std::size_t sampling = options.contexts > 0 ? sampling_bytes(state, options) : 0;
  // One block serves both: activations and the key/value store never live at once.
  plan.push_back({"activations and key/value store", std::max({training, sampling, state.work.bytes()})});
  plan.push_back({"backend scratch", std::max(state.backend->scratch_bytes(), trains ? training_scratch(state) : 0)});
  plan.push_back({"code, stacks and host tables", kHostBytes});
  return plan;
}

}  // namespace foretoken
