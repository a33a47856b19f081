#include "objective/objective.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "core/error.h"
#include "objective/policy.h"

namespace foretoken {

namespace {

std::string term_name(std::size_t index, const LossTerm& term) {
  return "term " + std::to_string(index) + (std::holds_alternative<PolicyTerm>(term) ? " (policy)" : " (cross-entropy)");
}

void require_length(const std::string& term, const char* field, std::size_t length, std::int64_t expected) {
  if (length != static_cast<std::size_t>(expected))
    fail(ErrorCode::InvalidArgument, term, ": ", field, " has ", length, " entries, expected ", expected);
}

void require_finite(const std::string& term, const char* field, double value) {
  if (!std::isfinite(value)) fail(ErrorCode::NonFinite, term, ": ", field, " is not a finite number");
}

void require_finite(const std::string& term, const char* field, const std::vector<float>& values) {
  for (std::size_t i = 0; i < values.size(); ++i)
    if (!std::isfinite(values[i])) fail(ErrorCode::NonFinite, term, ": ", field, "[", i, "] is not a finite number");
}

double checked_normaliser(const std::string& term, double value) {
  if (!(value > 0) || !std::isfinite(value))
    fail(ErrorCode::InvalidArgument, term, ": the normaliser must be a positive number, not ", value,
         "; by default it is the sum of the weights, so at least one must be positive");
  return value;
}

}  // namespace

Objective::Objective(const TokenForest& forest, const std::vector<LossTerm>& terms)
    : forest_(forest), predicted_(forest.size(), false), wanted_(forest.segments().size(), false) {
  if (terms.empty()) fail(ErrorCode::InvalidArgument, "accumulate needs at least one loss term");
  terms_.reserve(terms.size());
  for (std::size_t i = 0; i < terms.size(); ++i) {
    Term& term = terms_.emplace_back();
    term.source = &terms[i];
    term.scale.assign(forest.size(), 0.0);
    if (const auto* cross_entropy = std::get_if<CrossEntropyTerm>(&terms[i])) add_cross_entropy(*cross_entropy, term);
    else add_policy(std::get<PolicyTerm>(terms[i]), term);
  }
}

void Objective::mark(std::int64_t token) {
  predicted_[token] = true;
  wanted_[forest_.segment_of(token)] = true;
}

void Objective::add_cross_entropy(const CrossEntropyTerm& source, Term& term) {
  const std::string name = term_name(terms_.size() - 1, *term.source);
  if (!source.weights.empty()) require_length(name, "weights", source.weights.size(), forest_.size());
  require_finite(name, "weights", source.weights);
  require_finite(name, "coefficient", source.coefficient);
  double total = 0;
  for (const Segment& segment : forest_.segments())
    for (std::int64_t i = segment.begin; i < segment.begin + segment.length; ++i) {
      const bool has_prefix = segment.start_position > 0 || i > segment.begin;
      const double weight = source.weights.empty() ? 1.0 : source.weights[i];
      if (!has_prefix && !source.weights.empty() && weight != 0)
        fail(ErrorCode::InvalidArgument, name, ": weights[", i, "] is not 0, but the first token of a root has no prediction");
      if (!has_prefix || weight == 0) continue;
      term.scale[i] = weight;
      total += weight;
      mark(i);
    }
  const double normaliser = checked_normaliser(name, source.normaliser.value_or(total));
  for (double& scale : term.scale) scale *= source.coefficient / normaliser;
}

void Objective::add_policy(const PolicyTerm& source, Term& term) {
  const std::string name = term_name(terms_.size() - 1, *term.source);
  const std::int64_t N = forest_.size();
  const auto segments_count = static_cast<std::int32_t>(forest_.segments().size());
  require_length(name, "advantages", source.advantages.size(),
                 source.advantages_per_token ? N : static_cast<std::int64_t>(source.segments.size()));
  require_finite(name, "advantages", source.advantages);
  require_finite(name, "weights", source.weights);
  if (!source.old_logprobs.empty()) require_length(name, "oldLogprobs", source.old_logprobs.size(), N);
  if (!source.reference_logprobs.empty()) require_length(name, "referenceLogprobs", source.reference_logprobs.size(), N);
  if (!source.weights.empty()) require_length(name, "weights", source.weights.size(), N);
  if (source.kl_coefficient != 0 && source.reference_logprobs.empty())
    fail(ErrorCode::InvalidArgument, name, ": a KL coefficient needs referenceLogprobs");
  if (!(source.clip_low >= 0) || !(source.clip_high >= 0))
    fail(ErrorCode::InvalidArgument, name, ": clip bounds must not be negative");
  if (source.dual_clip != 0 && !(source.dual_clip > 1))
    fail(ErrorCode::InvalidArgument, name, ": dualClip must be greater than 1, not ", source.dual_clip);
  require_finite(name, "coefficient", source.coefficient);
  require_finite(name, "the KL coefficient", source.kl_coefficient);
  require_finite(name, "entropyCoefficient", source.entropy_coefficient);
  if (source.aggregation == Aggregation::Constant && !source.normaliser)
    fail(ErrorCode::InvalidArgument, name, ": constant aggregation needs a normaliser");

  const bool by_sequence = source.loss == PolicyLoss::Gspo;
  needs_sequences_ = needs_sequences_ || (by_sequence && !source.old_logprobs.empty());
  term.advantage.assign(N, 0.0f);
  if (by_sequence) {
    term.sequence.assign(N, -1);
    term.weight.assign(N, 0.0f);
    term.sequence_weight.assign(source.segments.size(), 0.0);
    term.sequence_log_ratio.assign(source.segments.size(), 0.0);
    term.sequence_gradient.assign(source.segments.size(), std::numeric_limits<double>::quiet_NaN());
  }

  double total = 0;
  std::vector<bool> seen(segments_count, false);
  for (std::size_t r = 0; r < source.segments.size(); ++r) {
    const std::int32_t index = source.segments[r];
    if (index < 0 || index >= segments_count)
      fail(ErrorCode::InvalidArgument, name, ": segment ", index, " does not exist: the forest has ", segments_count);
    if (seen[index]) fail(ErrorCode::InvalidArgument, name, ": segment ", index, " is listed twice");
    seen[index] = true;
    const Segment& segment = forest_.segments()[index];
    double sum = 0;
    for (std::int64_t i = segment.begin; i < segment.begin + segment.length; ++i) {
      double weight = source.weights.empty() ? 1.0 : source.weights[i];
      if (segment.start_position == 0 && i == segment.begin) weight = 0;  // nothing predicts the first token of a root
      if (weight == 0) continue;
      for (const auto& [field, values] : {std::pair{"oldLogprobs", &source.old_logprobs},
                                          std::pair{"referenceLogprobs", &source.reference_logprobs}})
        if (!values->empty() && !std::isfinite((*values)[i]))
          fail(ErrorCode::NonFinite, name, ": ", field, "[", i, "] is not a finite number");
      term.scale[i] = weight;
      term.advantage[i] = source.advantages_per_token ? source.advantages[i] : source.advantages[r];
      if (by_sequence) {
        term.sequence[i] = static_cast<std::int32_t>(r);
        term.weight[i] = static_cast<float>(weight);
        term.sequence_weight[r] += weight;
      }
      sum += weight;
      mark(i);
    }
    total += sum;
    if (source.aggregation == Aggregation::SequenceMean && sum != 0)
      for (std::int64_t i = segment.begin; i < segment.begin + segment.length; ++i) term.scale[i] /= sum;
  }
  double normaliser = source.aggregation == Aggregation::SequenceMean ? static_cast<double>(source.segments.size()) : total;
  normaliser = checked_normaliser(name, source.normaliser.value_or(normaliser));
  for (double& scale : term.scale) scale *= source.coefficient / normaliser;
}

void Objective::observe(std::span<const std::int64_t> index, std::span<const double> logprobs) {
  for (Term& term : terms_) {
    const auto* policy = std::get_if<PolicyTerm>(term.source);
    if (!policy || policy->loss != PolicyLoss::Gspo || policy->old_logprobs.empty()) continue;
    for (std::size_t m = 0; m < index.size(); ++m) {
      const std::int64_t token = index[m];
      if (term.sequence[token] < 0) continue;
      term.sequence_log_ratio[term.sequence[token]] += term.weight[token] * (logprobs[m] - policy->old_logprobs[token]);
    }
  }
}

double Objective::sequence_gradient(Term& term, const PolicyTerm& policy, std::int32_t r) const {
  double& gradient = term.sequence_gradient[r];
  if (!std::isnan(gradient)) return gradient;
  const double ratio = std::exp(term.sequence_log_ratio[r] / term.sequence_weight[r]);
  const Segment& segment = forest_.segments()[policy.segments[r]];
  gradient = 0;
  for (std::int64_t i = segment.begin; i < segment.begin + segment.length; ++i)
    if (term.scale[i] != 0) gradient += term.scale[i] * surrogate(policy, ratio, term.advantage[i], 0).derivative;
  return gradient;
}

std::vector<TermStatistics> Objective::statistics() const {
  std::vector<TermStatistics> result;
  for (const Term& term : terms_) {
    TermStatistics mean = term.sums;
    const double tokens = std::max(mean.tokens, 1.0);
    for (double* value : {&mean.entropy, &mean.logprob, &mean.clip_low, &mean.clip_high, &mean.clip_region, &mean.dual_clip,
                          &mean.ratio_mean, &mean.approximate_kl, &mean.kl})
      *value /= tokens;
    result.push_back(mean);
  }
  return result;
}

void Objective::evaluate(std::span<const std::int64_t> index, std::span<const double> logprobs,
                         std::span<const double> entropies, std::span<double> dlogprobs, std::span<double> dentropies) {
  std::fill(dlogprobs.begin(), dlogprobs.end(), 0.0);
  std::fill(dentropies.begin(), dentropies.end(), 0.0);
  for (Term& term : terms_) {
    const auto* policy = std::get_if<PolicyTerm>(term.source);
    TermStatistics& sums = term.sums;
    for (std::size_t m = 0; m < index.size(); ++m) {
      const std::int64_t token = index[m];
      const double scale = term.scale[token];
      if (scale == 0) continue;
      const double logprob = logprobs[m];
      sums.tokens += 1;
      sums.entropy += entropies[m];
      sums.logprob += logprob;
      if (!policy) {
        sums.loss -= scale * logprob;
        dlogprobs[m] -= scale;
        continue;
      }

      const double advantage = term.advantage[token];
      const bool on_policy = policy->old_logprobs.empty();
      const double log_ratio = on_policy ? 0.0 : logprob - policy->old_logprobs[token];
      double ratio = std::exp(log_ratio);
      const bool by_sequence = policy->loss == PolicyLoss::Gspo && !on_policy;
      if (by_sequence) {
        const std::int32_t r = term.sequence[token];
        ratio = std::exp(term.sequence_log_ratio[r] / term.sequence_weight[r]);
      }
      const Surrogate s = surrogate(*policy, ratio, advantage, logprob);
      sums.loss += scale * s.loss;
      // d log-ratio / d logprob is 1, or for a whole sequence this token's share of it.
      if (!by_sequence) dlogprobs[m] += scale * s.derivative;
      else dlogprobs[m] += sequence_gradient(term, *policy, term.sequence[token]) * term.weight[token] /
                           term.sequence_weight[term.sequence[token]];
      sums.clip_low += s.clipped_low;
      sums.clip_high += s.clipped_high;
      sums.clip_region += s.clipped_low || s.clipped_high;
      sums.dual_clip += s.dual_clipped;
      sums.ratio_mean += ratio;
      sums.ratio_max = std::max(sums.ratio_max, ratio);
      sums.approximate_kl += std::expm1(log_ratio) - log_ratio;

      if (!policy->reference_logprobs.empty()) {
        const KlTerm kl = kl_estimate(policy->kl, logprob, policy->reference_logprobs[token]);
        sums.kl += kl.value;
        sums.loss += scale * policy->kl_coefficient * kl.value;
        dlogprobs[m] += scale * policy->kl_coefficient * kl.derivative;
      }
      sums.loss -= scale * policy->entropy_coefficient * entropies[m];
      dentropies[m] -= scale * policy->entropy_coefficient;
    }
  }
}

}  // namespace foretoken
