#pragma once

#include <cstdint>
#include <optional>
#include <variant>
#include <vector>

namespace foretoken {

/// Σ weight · −log p over predicted tokens, divided by the normaliser.
struct CrossEntropyTerm {
  std::vector<float> weights;         // (forest tokens); empty: 1 for every token that has a prefix
  double coefficient = 1;
  std::optional<double> normaliser;   // default: the sum of the weights
};

enum class PolicyLoss { Clip, Cispo, Gspo };
enum class Aggregation { TokenMean, SequenceMean, Constant };
enum class KlEstimator { K1, K2, K3 };  // Schulman, "Approximating KL Divergence"

/// Policy gradient over whole segments; formulas in objective/policy.cpp.
struct PolicyTerm {
  std::vector<std::int32_t> segments;    // (R)
  std::vector<float> advantages;         // (R), one per segment, or (forest tokens), one per token
  bool advantages_per_token = false;
  std::vector<float> old_logprobs;       // (forest tokens) or empty: exactly on-policy, ratio 1
  std::vector<float> reference_logprobs; // (forest tokens) or empty: no KL term
  std::vector<float> weights;            // (forest tokens) or empty: 1 for every token of the segments
  PolicyLoss loss = PolicyLoss::Clip;
  double clip_low = 0.2, clip_high = 0.2;
  double dual_clip = 0;                  // 0: off; else > 1, bounds the loss of negative advantages (arXiv 1912.09729)
  Aggregation aggregation = Aggregation::TokenMean;
  std::optional<double> normaliser;      // default: Σ weights, or the number of segments; required for Constant
  double kl_coefficient = 0;
  KlEstimator kl = KlEstimator::K3;
  double entropy_coefficient = 0;        // > 0 rewards entropy
  double coefficient = 1;
};

using LossTerm = std::variant<CrossEntropyTerm, PolicyTerm>;

/// Sums over the tokens of one term; `mean` values divide by `tokens`.
struct TermStatistics {
  double loss = 0;             // the term as normalised and weighted: what is added to the total
  double tokens = 0;           // number of tokens with a non-zero weight
  double entropy = 0;          // mean, nats, of the distribution that each token was drawn from
  double logprob = 0;          // mean
  double clip_low = 0;         // share of tokens (gspo: sequences) clipped from below, with A < 0
  double clip_high = 0;        // share clipped from above, with A > 0
  double clip_region = 0;      // share clipped either way
  double dual_clip = 0;        // share bounded by the dual clip
  double ratio_mean = 0;       // mean importance ratio (1 when on-policy)
  double ratio_max = 0;
  double approximate_kl = 0;   // mean of (r − 1) − log r against the old policy (k3)
  double kl = 0;               // mean of the chosen estimator against the reference
};

}  // namespace foretoken
