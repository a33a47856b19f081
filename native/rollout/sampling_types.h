#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/weights_kind.h"

namespace foretoken {

struct StopRules {
  std::vector<std::int32_t> tokens;   // sampling one of these ends the rollout (the token is kept)
  std::vector<std::string> texts;     // bytes; the token that completes one ends the rollout (and is kept)
};

struct SampleOptions {
  std::vector<std::int32_t> from;     // segments to continue
  std::int32_t n = 1;                 // rollouts per segment
  std::int32_t max_tokens = 256;
  std::int32_t min_tokens = 0;        // stop tokens have no chance before
  double temperature = 1;
  std::int32_t top_k = 0;
  double top_p = 1;
  double min_p = 0;
  std::uint64_t seed = 0;
  std::vector<std::uint32_t> rollout_ids;  // (from.size() · n) stream of each rollout; empty: 0, 1, 2, …
  std::vector<std::int32_t> banned;   // tokens without a chance
  StopRules stop;
  WeightsKind weights = WeightsKind::Current;
  std::int32_t max_sequences = 0;     // most rollouts decoded at once; 0: as many as the store holds
  bool keep_activations = false;      // for an accumulate() of the same paths, as far as memory allows
};

enum class StopReason : std::uint8_t { Length, Token, Text };

struct Rollout {
  std::int32_t segment = 0;            // the segment it continues
  std::vector<std::int32_t> tokens;
  std::vector<float> logprobs;
  StopReason stop = StopReason::Length;
};

struct SampleStatistics {
  std::int64_t prefill_tokens = 0, decode_tokens = 0, decode_steps = 0, waves = 0;
  std::int64_t kept_tokens = 0;        // that went through the network and whose activations are kept
};

struct SampleResult {
  std::vector<Rollout> rollouts;       // n per entry of `from`, in order
  SampleStatistics statistics;
};

}  // namespace foretoken
