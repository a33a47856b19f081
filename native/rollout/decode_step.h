#pragma once

#include <span>
#include <vector>

#include "backend/arena.h"
#include "rollout/cached_forward.h"
#include "rollout/sampled_tokens.h"

namespace foretoken {

/// The rows of one step of decoding, one for each rollout, on the host.
struct DecodeBatch {
  std::vector<std::int32_t> tokens;      // the rollouts' last ones
  std::vector<std::int32_t> token_from;  // where the device has drawn one that the host has not seen, or −1
  std::vector<std::int32_t> positions;
  std::vector<std::span<const std::int32_t>> tables;  // pages of the path up to the position
  std::vector<SampleRow> draws;
  std::vector<std::int32_t> copy_from, copy_to;       // whole pages, before the step

  std::int64_t rows() const { return static_cast<std::int64_t>(tokens.size()); }
};

/// Runs steps of decoding: choice of the tokens, network, head, draws.
///
/// What a step is given lies in one block, uploaded at once. Where the backend records sequences, the number of rows and
/// the longest path are rounded up, so that many steps make the same calls with the same arguments. Rows that fill up the
/// batch attend to nothing, draw nothing, and leave their keys and values in a page that nobody reads.
class DecodeStep {
 public:
  DecodeStep(Backend& backend, const Decoder& decoder, const Head& head, const Weights& weights, const PageStore& store,
             const CachedForwardMemory& memory);

  /// `rules` and `sampled` are the same in all steps. Leaves the activations and logits in `kept`, if any;
  /// none where the backend records sequences.
  void run(const DecodeBatch& batch, const TokenRules& rules, const SampledTokens& sampled, KeptActivations* kept,
           const Control& control);

  /// The least of a few numbers of rows that is not below `rows`.
  static std::int64_t rounded_rows(std::int64_t rows);

 private:
  Backend& backend_;
  const Decoder& decoder_;
  const Head& head_;
  const Weights& weights_;
  const PageStore& store_;
  const CachedForwardMemory& memory_;
  std::uint64_t number_;          // of this object, in the keys of its sequences
  std::vector<std::byte> block_;  // as it is uploaded
  DeviceArray<std::int32_t> copy_from_, copy_to_;
};

}  // namespace foretoken
