#include <algorithm>

#include "engine/state.h"

namespace foretoken {

namespace {

// The library's code, thread stacks, packed tables on the host and what malloc keeps: measured at 6 to 10 MB, whatever the
// model.
constexpr std::size_t kHostBytes = std::size_t{8} << 20;

/// Tokens of a segment, on average: a guess, on which little depends.
constexpr std::int64_t kSegmentTokens = 8;

/// Of the described work; `rows` are trained on.
PassExtent extent_of(const Engine::State& state, const MemoryPlanOptions& options, std::int64_t rows) {
  const ModelConfig& config = state.config;
  const std::int64_t sequence = options.context_tokens + options.new_tokens;
  PassExtent work;
  work.attention.heads = static_cast<int>(config.num_heads);
  work.attention.kv_heads = static_cast<int>(config.num_kv_heads);
  work.attention.head_dim = static_cast<int>(config.head_dim);
  work.hidden = config.hidden_size;
  work.feed_forward = config.intermediate_size;
  work.vocabulary = config.vocab_size;
  work.biased = std::max(config.qkv_bias ? config.qkv_width() : 0, config.mlp_bias ? 2 * config.intermediate_size : 0);
  work.backward = rows > 0;
  work.sampling = options.contexts > 0;
  if (work.backward) {
    work.rows = rows;
    work.runs = rows / kSegmentTokens + 1;
    work.longest_path = sequence > 0 ? std::min(rows, sequence) : rows;
  }
  if (work.sampling) {
    const CachedForwardRows sampling =
        sampling_rows(state, options.contexts, options.rollouts, options.max_sequences, sequence);
    work.rows = std::max(work.rows, sampling.rows);
    work.runs = std::max(work.runs, sampling.head_rows);
    work.longest_path = std::max(work.longest_path, sequence);
  }
  work.longest_path = std::min(work.longest_path, config.max_position_embeddings);
  return work;
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

  const auto held = [&](const char* purpose) {
    const auto found = state.budget.purposes().find(purpose);
    return found == state.budget.purposes().end() ? std::size_t{0} : found->second;
  };
  std::vector<MemoryItem> plan;
  plan.push_back({"weights", ParameterStore::bytes_for(specs, matrices, vectors) +
                                 Weights::bytes_for(*state.backend, state.config, trainable)});
  if (trains || state.gradients) plan.push_back({"gradients", ParameterStore::bytes_for(specs, vectors, vectors)});
  if (trains || state.m) plan.push_back({"optimizer", 2 * ParameterStore::bytes_for(specs, matrices, vectors)});
  for (const char* copy : {"reference weights", "average weights"})
    if (const std::size_t bytes = held(copy)) plan.push_back({copy, bytes});
  const std::size_t training = trains ? training_bytes(state, rows, false) : 0;
  const std::size_t sampling = options.contexts > 0 ? sampling_bytes(state, options) : 0;
  // One block serves both: activations and the key/value store never live at once.
  plan.push_back({kWorkPurpose, std::max({training, sampling, state.work.bytes()})});
  const std::size_t work = plan.size() - 1;
  std::size_t scratch = 0, table = 0;
  if (trains || sampling > 0) {
    const PassExtent extent = extent_of(state, options, rows);
    scratch = state.backend->scratch_bytes_for(extent);
    table = state.rope_table_bytes(extent.longest_path);
  }
  plan.push_back({"RoPE table", std::max(held("RoPE table"), table)});
  plan.push_back({"backend scratch", std::max(state.backend->scratch_bytes(), scratch)});
  plan.push_back({"code, stacks and host tables", kHostBytes});

  std::size_t kept = state.kept.bytes();
  if (options.keep_activations && options.contexts > 0 && !state.backend->asynchronous()) {
    std::size_t others = 0;
    for (const MemoryItem& item : plan) others += item.bytes;
    const std::int64_t decoded = options.contexts * options.rollouts * std::max<std::int64_t>(options.new_tokens - 1, 0);
    const KeptActivations::Extent wanted{options.contexts * options.context_tokens + decoded, options.contexts + decoded};
    const KeptActivations::Extent fitting = state.keepable(wanted, others);
    kept = std::max(kept, KeptActivations::bytes_for(*state.backend, state.config, fitting));
    if (trains && fitting.rows == wanted.rows)
      plan[work].bytes = std::max({training_bytes(state, rows, true), sampling, state.work.bytes()});
  }
  if (kept > 0) plan.push_back({kKeptPurpose, kept});
  return plan;
}

}  // namespace foretoken
