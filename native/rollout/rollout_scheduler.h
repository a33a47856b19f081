#pragma once

#include <deque>
#include <optional>
#include <vector>

#include "core/control.h"
#include "rollout/cached_forward.h"
#include "rollout/decode_step.h"
#include "rollout/sampled_tokens.h"
#include "rollout/sampling_types.h"
#include "rollout/stop_rules.h"

namespace foretoken {

/// Continuous batching: contexts are prefilled as the store has room, rollouts join the decoding batch as others leave it.
///
/// A rollout reserves the pages of its longest possible length before it starts, and a context is taken in only while
/// at least one more rollout still fits: so the batch never gets stuck, and a small store only means more waves. What a
/// rollout says does not depend on any of this: its logits depend on its prefix, its draws on (seed, id, position).
///
/// On an asynchronous device decoding is one step ahead of what the host has seen: a step takes its tokens where the step
/// before drew them, and is queued before those are looked at. A rollout that turns out to have ended has then taken part
/// in one step too many, whose token is dropped; where it ended with a stop token the device has seen so by itself and has
/// not attended to its path.
class RolloutScheduler {
 public:
  /// `kept` takes the activations of what goes through the network; null keeps none.
  RolloutScheduler(const TokenForest& forest, const SampleOptions& options, std::int64_t prefill_tokens,
                   std::int64_t max_sequences, std::int64_t pages, std::int64_t page_positions, KeptActivations* kept);

  /// Pages without which `options` cannot be served at all, and pages that serve it in one wave.
  static std::int64_t least_pages(const TokenForest& forest, const SampleOptions& options, std::int64_t page_positions);
  static std::int64_t most_pages(const TokenForest& forest, const SampleOptions& options, std::int64_t page_positions);

  SampleResult run(Backend& backend, CachedForward& forward, DecodeStep& step, const StopMatcher& stop, const Control& control);

 private:
  /// A rollout that has begun: its first token is drawn at the end of its context.
  struct Sequence {
    std::int32_t rollout;              // index into the result
    std::int32_t entry;                // index into options.from
    std::vector<std::int32_t> table;   // pages of its whole path once it decodes
    std::int64_t own_begin = 0;        // first block that is its own
    StopMatcher::Tail tail;
  };

  /// Tokens that are being drawn, for rows of one pass.
  struct Draw {
    std::vector<std::int32_t> rollouts;  // of the rows
    std::vector<SampleRow> rows;
    int half = 0;                        // of SampledTokens, where they go

    std::int64_t count() const { return static_cast<std::int64_t>(rows.size()); }
    void clear() { rollouts.clear(); rows.clear(); }
  };

  bool admit_contexts();
  void prefill(Backend& backend, CachedForward& forward, const StopMatcher& stop, const Control& control);
  void admit_sequences(DecodeBatch& batch);
  void decode(Backend& backend, DecodeStep& step, const StopMatcher& stop, const Control& control);
  /// The next step of all rollouts that may go on; `ahead` holds what is being drawn for them, if anything.
  DecodeBatch next_step(const Draw& ahead, Draw& drawing);
  /// A row of `drawing` for the rollout's token number `position`.
  void add_row(Draw& drawing, std::int32_t rollout, std::int64_t position) const;
  /// Appends what `drawing` has for the rollouts in the batch; those that end leave it.
  void collect(const Draw& drawing, const StopMatcher& stop);
  /// Appends the drawn token; answers whether the rollout goes on.
  bool append(Sequence& sequence, std::int32_t token, float logprob, const StopMatcher& stop);
  void finish(Sequence& sequence);
  /// Says what has just been kept: activations of these tokens of the forest, or of the rollouts' tokens in `batch` with
  /// their logits.
  void keep_context(const std::vector<std::int64_t>& tokens);
  void keep_step(const DecodeBatch& batch, const Draw& drawing);

  std::int64_t context_length(std::int32_t entry) const;
  std::int64_t last_token(std::int32_t entry) const;  // of the context, in the forest
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
  KeptActivations* const kept_;
  std::vector<std::int32_t> kept_tokens_;     // (forest tokens) row of each in kept_, or kAbsent
  std::vector<std::int32_t> kept_last_;       // (rollouts) row of the last token that went through the network, or kAbsent
  std::int64_t decoded_ = 0;

  Draw ahead_;                                 // by the step under way, where that is queued before the host sees it
  std::optional<SampledTokens> sampled_;
  DeviceArray<SampleRow> first_rows_;          // of a prefill's draws
  DeviceArray<std::int32_t> banned_, stops_;
  TokenRules rules_;
};

}  // namespace foretoken
