#pragma once

#include <deque>
#include <vector>

#include "core/control.h"
#include "rollout/cached_forward.h"
#include "rollout/sampling_types.h"
#include "rollout/stop_rules.h"

namespace foretoken {

/// Continuous batching: contexts are prefilled as the store has room, rollouts join the decoding batch as others leave it.
///
/// A rollout reserves the pages of its longest possible length before it starts, and a context is taken in only while
/// at least one more rollout still fits: so the batch never gets stuck, and a small store only means more waves. What a
/// rollout says does not depend on any of this: its logits depend on its prefix, its draws on (seed, id, position).
class RolloutScheduler {
 public:
  RolloutScheduler(const TokenForest& forest, const SampleOptions& options, std::int64_t prefill_tokens,
                   std::int64_t max_sequences, std::int64_t pages, std::int64_t page_positions);

  /// Pages without which `options` cannot be served at all, and pages that serve it in one wave.
  static std::int64_t least_pages(const TokenForest& forest, const SampleOptions& options, std::int64_t page_positions);
  static std::int64_t most_pages(const TokenForest& forest, const SampleOptions& options, std::int64_t page_positions);

  SampleResult run(Backend& backend, CachedForward& forward, const StopMatcher& stop, const Control& control);

 private:
  /// A rollout that has begun: its first token is drawn at the end of its context.
  struct Sequence {
    std::int32_t rollout;              // index into the result
    std::int32_t entry;                // index into options.from
    std::vector<std::int32_t> table;   // pages of its whole path once it decodes
    std::int64_t own_begin = 0;        // first block that is its own
    StopMatcher::Tail tail;
  };

  bool admit_contexts();
  void prefill(Backend& backend, CachedForward& forward, const StopMatcher& stop, const Control& control);
  void admit_sequences(CachedBatch& batch);
  void decode(Backend& backend, CachedForward& forward, const StopMatcher& stop, const Control& control);
  /// Draws a token for each head row [begin, begin + count) of the last pass; row i continues sequences[i].
  void draw(Backend& backend, View logits, const std::vector<Sequence*>& sequences);
  /// Appends the drawn token; answers whether the rollout goes on.
  bool append(Sequence& sequence, std::int32_t token, float logprob, const StopMatcher& stop);
  void finish(Sequence& sequence);

  std::int64_t context_length(std::int32_t entry) const;
  static std::int64_t sequence_pages(std::int64_t context, std::int64_t max_tokens, std::int64_t page_positions);

  const TokenForest& forest_;
  const SampleOptions& options_;
  const std::int64_t prefill_tokens_, max_sequences_, page_positions_;
  PagePool pool_;
  ContextCache contexts_;
  SampleResult result_;
  std::vector<std::int32_t> unfinished_;      // (from) rollouts of the entry not yet finished
  std::int32_t next_entry_ = 0;
  std::vector<std::int32_t> absent_;          // segments to be prefilled, ancestors first
  std::vector<std::int32_t> admitted_;        // entries whose context is being prefilled
  std::deque<Sequence> waiting_;
  std::vector<Sequence> active_;
  std::vector<std::int32_t> row_in_batch_;    // (forest tokens) scratch of the prefill
  std::int64_t decoded_ = 0;

  DeviceArray<SampleRow> sample_rows_;
  DeviceArray<std::int32_t> banned_, drawn_device_;
  Buffer logprobs_device_;
  std::vector<std::int32_t> drawn_;
  std::vector<float> drawn_logprobs_;
};

}  // namespace foretoken
