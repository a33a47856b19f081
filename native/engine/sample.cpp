#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "engine/state.h"
#include "rollout/rollout_scheduler.h"

namespace foretoken {

namespace {

void validate(const SampleOptions& options, const TokenForest& forest, std::int64_t vocabulary) {
  const auto require = [](bool holds, const auto&... what) {
    if (!holds) fail(ErrorCode::InvalidArgument, "sample: ", what...);
  };
  require(!options.from.empty(), "`from` names no segment to continue");
  for (const std::int32_t segment : options.from)
    require(segment >= 0 && segment < static_cast<std::int32_t>(forest.segments().size()), "segment ", segment,
            " does not exist: the forest has ", forest.segments().size());
  require(options.n >= 1, "n must be at least 1, not ", options.n);
  require(options.max_tokens >= 1, "maxTokens must be at least 1, not ", options.max_tokens);
  require(options.min_tokens >= 0 && options.min_tokens <= options.max_tokens, "minTokens must lie between 0 and maxTokens");
  require(std::isfinite(options.temperature) && options.temperature >= 0, "temperature must be 0 or more, not ", options.temperature);
  require(options.top_k >= 0, "topK must not be negative");
  require(options.top_p > 0 && options.top_p <= 1, "topP must lie in (0, 1], not ", options.top_p);
  require(options.min_p >= 0 && options.min_p <= 1, "minP must lie in [0, 1], not ", options.min_p);
  require(options.rollout_ids.empty() || options.rollout_ids.size() == options.from.size() * static_cast<std::size_t>(options.n),
          "rolloutIds needs one entry per rollout");
  std::vector<bool> banned(static_cast<std::size_t>(vocabulary), false);
  for (const auto* list : {&options.banned, &options.stop.tokens})
    for (const std::int32_t token : *list)
      require(token >= 0 && token < vocabulary, "token ", token, " is outside the vocabulary of ", vocabulary);
  for (const std::int32_t token : options.banned) banned[token] = true;
  if (options.min_tokens > 0)
    for (const std::int32_t token : options.stop.tokens) banned[token] = true;
  require(std::find(banned.begin(), banned.end(), false) != banned.end(), "every token is banned");
}

/// Pages of the store that no rollout gets.
std::int64_t spare_pages(const Backend& backend) { return backend.records() ? 1 : 0; }

/// Rows that go through the network at most: contexts, the last tokens of those that are there already, and rollouts' tokens
/// but the last of each. Logits of contexts' last tokens and of all in rollouts.
KeptActivations::Extent all_to_keep(const TokenForest& forest, const SampleOptions& options) {
  std::vector<bool> counted(forest.segments().size(), false);
  const auto contexts = static_cast<std::int64_t>(options.from.size());
  const std::int64_t decoded = contexts * options.n * (options.max_tokens - 1);
  KeptActivations::Extent extent{contexts + decoded, contexts + decoded};
  for (const std::int32_t segment : options.from)
    for (std::int32_t up = segment; up >= 0 && !counted[up]; up = forest.segments()[up].parent) {
      counted[up] = true;
      extent.rows += forest.segments()[up].length;
    }
  return extent;
}

/// Makes room for what is to be kept, or for as much as there is memory for beside all that training will
/// hold by `plan`, and `work` for this call. Null where none do, and on a GPU: steps of decoding that are recorded write to the same
/// addresses every time, and are queued before their tokens are known.
KeptActivations* room_for_activations(Engine::State& state, const std::vector<MemoryItem>& plan,
                                      const KeptActivations::Extent& wanted, std::size_t work) {
  if (state.backend->asynchronous()) return nullptr;
  std::size_t others = 0;
  for (const MemoryItem& item : plan)
    if (item.name == kWorkPurpose) others += std::max(item.bytes, work);
    else if (item.name != kKeptPurpose) others += item.bytes;
  const KeptActivations::Extent extent = state.keepable(wanted, others);
  state.budget.hold(kKeptPurpose,
                    std::max(state.kept.bytes(), KeptActivations::bytes_for(*state.backend, state.config, extent)));
  try {
    state.kept.reserve(*state.backend, state.config, extent);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::OutOfMemory) throw;
    state.release_kept();  // the operating system has less to give than it said: sampling can do without
    return nullptr;
  }
  return extent.rows > 0 ? &state.kept : nullptr;
}

}  // namespace

CachedForwardRows sampling_rows(const Engine::State& state, std::int64_t contexts, std::int64_t rollouts,
                                std::int64_t max_sequences, std::int64_t longest_path) {
  const std::int64_t prefill = state.options.batch_tokens;
  const std::int64_t sequences = std::min(contexts * rollouts, max_sequences > 0 ? max_sequences : prefill);
  return {std::max(prefill, sequences), std::max(sequences, contexts), sequences, longest_path};
}

std::size_t sampling_bytes(const Engine::State& state, const MemoryPlanOptions& options) {
  AttentionShape shape;
  shape.heads = static_cast<int>(state.config.num_heads);
  shape.kv_heads = static_cast<int>(state.config.num_kv_heads);
  shape.head_dim = static_cast<int>(state.config.head_dim);
  const CachedForwardRows rows = sampling_rows(state, options.contexts, options.rollouts, options.max_sequences,
                                               options.context_tokens + options.new_tokens - 1);
  CachedForwardMemory memory;
  Arena plan;
  memory.lay_out(plan, *state.backend, state.config, rows);
  const std::int64_t P = state.backend->page_positions();
  const std::int64_t context = (options.context_tokens + P - 1) / P;
  const std::int64_t sequence = (options.context_tokens + options.new_tokens - 1 + P - 1) / P - options.context_tokens / P;
  std::int64_t pages = options.contexts * (context + options.rollouts * sequence);
  if (state.options.cache_tokens > 0) pages = std::min(pages, state.options.cache_tokens / P);
  pages += spare_pages(*state.backend);
  return plan.used() + static_cast<std::size_t>(pages * state.config.num_layers) * state.backend->page_bytes(shape);
}

SampleResult Engine::sample(const TokenForest& forest, const SampleOptions& options, const Control& control) {
  State& state = *state_;
  validate(options, forest, state.config.vocab_size);
  std::int64_t longest = 0;
  for (const std::int32_t segment : options.from) {
    const Segment& s = forest.segments()[segment];
    longest = std::max(longest, std::int64_t{s.start_position} + s.length + options.max_tokens - 1);
  }
  if (longest > state.config.max_position_embeddings)
    fail(ErrorCode::InvalidArgument, "sample: a context with maxTokens new tokens would reach position ", longest,
         ", beyond the model's ", state.config.max_position_embeddings);
  Decoder& decoder = state.decoder_for(forest);
  if (decoder.positions() < longest) state.decoder_for(forest, options.max_tokens);
  Decoder& covering = *state.decoder;
  Backend& backend = *state.backend;
  const StopMatcher stop(options.stop, state.token_bytes, state.token_offsets);
  const Weights& weights = state.weights(options.weights);

  const std::int64_t P = backend.page_positions(), layers = state.config.num_layers;
  const std::size_t page_bytes = backend.page_bytes(covering.attention_shape(0));
  const std::size_t store_page = page_bytes * static_cast<std::size_t>(layers);
  const CachedForwardRows rows =
      sampling_rows(state, static_cast<std::int64_t>(options.from.size()), options.n, options.max_sequences, longest);

  CachedForwardMemory memory;
  Arena plan;
  memory.lay_out(plan, backend, state.config, rows);
  const std::int64_t least = RolloutScheduler::least_pages(forest, options, P);
  const std::int64_t most = RolloutScheduler::most_pages(forest, options, P);
  std::int64_t pages = most;
  if (state.options.cache_tokens > 0) {
    pages = std::min(most, state.options.cache_tokens / P);
  } else {
    // What is held for work is given back before this call's share is taken.
    const std::size_t others = state.budget.held() - state.work.bytes() - state.kept.bytes();
    const std::size_t room = state.budget.limit() - std::min(state.budget.limit(), others + plan.used());
    pages = std::clamp<std::int64_t>(static_cast<std::int64_t>(room / store_page) - spare_pages(backend), 0, most);
  }
  pages = std::min(pages, std::numeric_limits<std::int32_t>::max() / P - spare_pages(backend));  // slots have 32 bits
  if (pages < least)
    fail(ErrorCode::OutOfMemory, "sample: the key/value store has room for ", pages * P, " tokens (",
         (store_page * static_cast<std::size_t>(std::max<std::int64_t>(pages, 0))) >> 20, " MB), but the longest context and one rollout of ",
         options.max_tokens, " tokens need ", least * P, " (", (store_page * static_cast<std::size_t>(least)) >> 20,
         " MB). What helps: a larger cacheTokens or memoryLimit, fewer maxTokens, a shorter context");

  const std::size_t store_bytes = store_page * static_cast<std::size_t>(pages + spare_pages(backend));
  KeptActivations* kept = nullptr;
  if (options.keep_activations && options.weights == WeightsKind::Current)
    kept = room_for_activations(state, memory_plan(), all_to_keep(forest, options), plan.used() + store_bytes);
  else
    state.release_kept();

  PageStore store;
  store.page_positions = P;
  store.spare_page = static_cast<std::int32_t>(pages);
  store.layer_bytes = page_bytes * static_cast<std::size_t>(pages + spare_pages(backend));
  Arena arena(state.work.reserve(plan.used() + store_bytes));
  memory.lay_out(arena, backend, state.config, rows);
  store.data = arena.bytes(store_bytes);

  CachedForward forward(backend, covering, state.head, weights, store, memory);
  DecodeStep step(backend, covering, state.head, weights, store, memory);
  RolloutScheduler scheduler(forest, options, state.options.batch_tokens, rows.sequences, pages, P, kept);
  return scheduler.run(backend, forward, step, stop, control);
}

}  // namespace foretoken
