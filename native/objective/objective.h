#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "forest/token_forest.h"
#include "objective/loss_terms.h"

namespace foretoken {

/// The loss of one `accumulate` call: from log-probs and entropies of tokens to their gradients.
///
/// Every loss here is a function of log-probs and entropies alone, so the network's backward pass only ever needs two
/// numbers per token: dloss/dlogprob and dloss/dentropy. Normalisers are fixed at construction, from the terms alone,
/// so that the way tokens are cut into micro-batches changes no number.
class Objective {
 public:
  /// Validates the terms against the forest; errors name the term and the field.
  Objective(const TokenForest& forest, const std::vector<LossTerm>& terms);

  /// (forest tokens) whether any term looks at the token.
  const std::vector<bool>& predicted() const { return predicted_; }
  /// (segments) whether any term looks at one of its tokens.
  const std::vector<bool>& wanted() const { return wanted_; }
  /// Whether a token's loss depends on other tokens' log-probs (gspo): then `observe` must see all tokens of the
  /// micro-batch before `evaluate`.
  bool needs_sequences() const { return needs_sequences_; }

  /// Adds log-probs to the sums over sequences. index (M): forest tokens.
  void observe(std::span<const std::int64_t> index, std::span<const double> logprobs);

  /// dlogprobs (M) and dentropies (M) are overwritten with the gradients of the loss; statistics are added up.
  void evaluate(std::span<const std::int64_t> index, std::span<const double> logprobs, std::span<const double> entropies,
                std::span<double> dlogprobs, std::span<double> dentropies);

  /// Per term, after all micro-batches.
  std::vector<TermStatistics> statistics() const;

 private:
  struct Term {
    const LossTerm* source = nullptr;
    std::vector<double> scale;      // (forest tokens) factor of the token's loss: coefficient · weight / normaliser
    std::vector<float> advantage;   // (forest tokens), policy only
    std::vector<std::int32_t> sequence;      // (forest tokens) position among the term's segments, -1 outside; gspo only
    std::vector<double> sequence_weight;     // (segments of the term) Σ weight; gspo only
    std::vector<double> sequence_log_ratio;  // (segments of the term) Σ weight · (logprob − old); gspo only
    std::vector<double> sequence_gradient;   // (segments of the term) d loss / d log-ratio, NaN until asked for; gspo only
    std::vector<float> weight;               // (forest tokens); gspo only
    TermStatistics sums;
  };

  void add_cross_entropy(const CrossEntropyTerm& source, Term& term);
  void add_policy(const PolicyTerm& source, Term& term);
  double sequence_gradient(Term& term, const PolicyTerm& policy, std::int32_t r) const;
  void mark(std::int64_t token);

  const TokenForest& forest_;
  std::vector<Term> terms_;
  std::vector<bool> predicted_, wanted_;
  bool needs_sequences_ = false;
};

}  // namespace foretoken
