#include <cmath>
#include <numeric>
#include <string>

#include "core/error.h"
#include "core/json.h"
#include "core/mapped_file.h"
#include "files.h"
#include "objective/objective.h"
#include "test.h"

using namespace foretoken;

namespace {

const json::Value& member(const json::Value& value, const char* key) {
  const json::Value* found = value.find(key);
  if (!found) throw test::Failure{std::string("losses.json: no member ") + key};
  return *found;
}

double number(const json::Value& value) { return value.as_number()->value; }

std::vector<double> numbers(const json::Value& value) {
  std::vector<double> result;
  for (const json::Value& each : *value.as_array()) result.push_back(number(each));
  return result;
}

/// Sequences of the file as children of one root token: token i of the file is token i + 1 of the forest.
struct Losses {
  json::Value file = json::parse(MappedFile(test::fixture("losses.json")).text(), "losses.json", ErrorCode::InvalidArgument);
  TokenForest forest;
  std::vector<std::int32_t> segments;
  std::vector<double> mask = numbers(member(file, "mask"));

  Losses() {
    const std::int32_t root = forest.add(-1, std::vector<std::int32_t>{0});
    for (const double length : numbers(member(file, "lengths")))
      segments.push_back(forest.add(root, std::vector<std::int32_t>(static_cast<std::size_t>(length), 0)));
  }

  std::vector<float> by_forest(const std::vector<double>& values) const {
    std::vector<float> result{0.0f};
    for (const double value : values) result.push_back(static_cast<float>(value));
    return result;
  }

  std::vector<double> column(const json::Value& test_case, const char* name) const {
    return numbers(member(member(member(file, "data"), member(test_case, "data").as_string()->c_str()), name));
  }

  LossTerm term(const json::Value& test_case) const {
    const json::Value& settings = member(test_case, "settings");
    const std::string loss = *member(settings, "loss").as_string(), how = *member(settings, "normalisation").as_string();
    const json::Value* normaliser = settings.find("normaliser");
    if (loss == "cross-entropy") {
      CrossEntropyTerm term;
      std::vector<double> weights = mask;
      if (settings.find("weighted")) {
        const std::vector<double> given = column(test_case, "weight");
        for (std::size_t i = 0; i < weights.size(); ++i) weights[i] *= given[i];
      }
      if (how == "sequence-mean") {  // a weight per token expresses it
        const std::vector<double> sequence = numbers(member(file, "sequence"));
        std::vector<double> count(segments.size(), 0.0);
        for (std::size_t i = 0; i < mask.size(); ++i) count[static_cast<std::size_t>(sequence[i])] += mask[i];
        for (std::size_t i = 0; i < mask.size(); ++i) weights[i] /= count[static_cast<std::size_t>(sequence[i])];
        term.normaliser = static_cast<double>(segments.size());
      }
      if (normaliser) term.normaliser = number(*normaliser);
      term.weights = by_forest(weights);
      return term;
    }
    PolicyTerm term;
    term.segments = segments;
    term.advantages_per_token = true;
    term.advantages = by_forest(column(test_case, "advantage"));
    if (loss == "none") std::fill(term.advantages.begin(), term.advantages.end(), 0.0f);
    term.weights = by_forest(mask);
    if (!settings.find("on_policy")) term.old_logprobs = by_forest(column(test_case, "old"));
    term.loss = loss == "gspo" ? PolicyLoss::Gspo : loss == "cispo" ? PolicyLoss::Cispo : PolicyLoss::Clip;
    if (const json::Value* clip = settings.find("clip")) {
      const json::Value& low = (*clip->as_array())[0];
      term.clip_low = low.is_null() ? 1e9 : number(low);
      term.clip_high = number((*clip->as_array())[1]);
    }
    if (const json::Value* dual = settings.find("dual")) term.dual_clip = number(*dual);
    term.aggregation = how == "token-mean"      ? Aggregation::TokenMean
                       : how == "sequence-mean" ? Aggregation::SequenceMean
                                                : Aggregation::Constant;
    if (normaliser) term.normaliser = number(*normaliser);
    if (const json::Value* kl = settings.find("kl")) {
      term.kl = *kl->as_string() == "k1" ? KlEstimator::K1 : *kl->as_string() == "k2" ? KlEstimator::K2 : KlEstimator::K3;
      term.kl_coefficient = number(member(settings, "beta"));
      term.reference_logprobs = by_forest(column(test_case, "ref"));
    }
    if (const json::Value* entropy = settings.find("entropy_coefficient")) term.entropy_coefficient = number(*entropy);
    return term;
  }
};

struct Evaluated {
  double loss = 0;
  std::vector<double> dlogprobs, dentropies;
  TermStatistics statistics;
};

/// Evaluates in pieces of `piece` tokens, as micro-batches and chunks do.
Evaluated evaluate(const TokenForest& forest, const LossTerm& term, const std::vector<double>& logprobs,
                   const std::vector<double>& entropies, std::size_t piece) {
  const std::vector<LossTerm> terms{term};
  Objective objective(forest, terms);
  std::vector<std::int64_t> index(logprobs.size());
  std::iota(index.begin(), index.end(), 1);
  Evaluated result;
  result.dlogprobs.resize(index.size());
  result.dentropies.resize(index.size());
  objective.observe(index, logprobs);
  for (std::size_t begin = 0; begin < index.size(); begin += piece) {
    const std::size_t count = std::min(piece, index.size() - begin);
    objective.evaluate(std::span(index).subspan(begin, count), std::span(logprobs).subspan(begin, count),
                       std::span(entropies).subspan(begin, count), std::span(result.dlogprobs).subspan(begin, count),
                       std::span(result.dentropies).subspan(begin, count));
  }
  result.statistics = objective.statistics()[0];
  result.loss = result.statistics.loss;
  return result;
}

// The file's numbers are float64, the engine takes old and reference log-probs, advantages and weights in float32:
// each is off by up to 6e-8 of itself, and the exponential of a difference of log-probs near 4 passes that on.
constexpr double kTolerance = 3e-6;

}  // namespace

TEST("every loss term has the loss and the gradients that PyTorch computes") {
  const Losses losses;
  std::size_t count = 0;
  for (const json::Value& test_case : *member(losses.file, "cases").as_array()) {
    const std::string& name = *member(test_case, "name").as_string();
    const Evaluated got = evaluate(losses.forest, losses.term(test_case), losses.column(test_case, "logp"),
                                   losses.column(test_case, "entropy"), losses.mask.size());
    const auto close = [&](double actual, double expected, const std::string& what) {
      if (!(std::fabs(actual - expected) <= kTolerance * std::max(1.0, std::fabs(expected))))
        throw test::Failure{name + ": " + what + " is " + std::to_string(actual) + ", expected " + std::to_string(expected)};
    };
    close(got.loss, number(member(test_case, "loss")), "the loss");
    const std::vector<double> dlogprobs = numbers(member(test_case, "d_logprobs"));
    for (std::size_t i = 0; i < dlogprobs.size(); ++i) close(got.dlogprobs[i], dlogprobs[i], "d logprob " + std::to_string(i));
    const json::Value* dentropies = test_case.find("d_entropies");
    for (std::size_t i = 0; i < dlogprobs.size(); ++i)
      close(got.dentropies[i], dentropies ? number((*dentropies->as_array())[i]) : 0.0, "d entropy " + std::to_string(i));
    if (const json::Value* statistics = test_case.find("statistics")) {
      close(got.statistics.clip_low, number(member(*statistics, "clip_low")), "clip_low");
      close(got.statistics.clip_high, number(member(*statistics, "clip_high")), "clip_high");
      close(got.statistics.clip_region, number(member(*statistics, "clip_region")), "clip_region");
      close(got.statistics.approximate_kl, number(member(*statistics, "kl_k3")), "approximate KL");
      close(got.statistics.entropy, number(member(*statistics, "entropy")), "entropy");
      if (const json::Value* dual = statistics->find("clip_dual")) close(got.statistics.dual_clip, number(*dual), "dual clip");
    }
    ++count;
  }
  CHECK(count >= 40);
}

TEST("the way tokens are cut into pieces changes no gradient") {
  const Losses losses;
  for (const json::Value& test_case : *member(losses.file, "cases").as_array()) {
    const LossTerm term = losses.term(test_case);
    const auto in_pieces = [&](std::size_t piece) {
      return evaluate(losses.forest, term, losses.column(test_case, "logp"), losses.column(test_case, "entropy"), piece);
    };
    const Evaluated whole = in_pieces(losses.mask.size());
    for (const std::size_t piece : {1, 3, 17}) {
      const Evaluated cut = in_pieces(piece);
      CHECK(cut.dlogprobs == whole.dlogprobs);
      CHECK(cut.dentropies == whole.dentropies);
    }
  }
}

TEST("a sequence's advantage stands for the same advantage at each of its tokens") {
  const Losses losses;
  const std::vector<double> logprobs(losses.mask.size(), -1.0), entropies(losses.mask.size(), 0.5);
  PolicyTerm by_segment;
  by_segment.segments = losses.segments;
  std::vector<float> by_token{0.0f};
  for (std::size_t s = 0; s < losses.segments.size(); ++s) {
    by_segment.advantages.push_back(static_cast<float>(s) - 2.5f);
    by_token.insert(by_token.end(), losses.forest.segments()[losses.segments[s]].length, by_segment.advantages.back());
  }
  PolicyTerm by_tokens = by_segment;
  by_tokens.advantages_per_token = true;
  by_tokens.advantages = by_token;
  const Evaluated a = evaluate(losses.forest, by_segment, logprobs, entropies, 5);
  const Evaluated b = evaluate(losses.forest, by_tokens, logprobs, entropies, 5);
  CHECK(a.dlogprobs == b.dlogprobs);
  CHECK_EQ(a.loss, b.loss);
}

TEST("a loss term that does not fit the forest is refused by name") {
  const Losses losses;
  const auto refuse = [&](auto change, ErrorCode code = ErrorCode::InvalidArgument) {
    PolicyTerm term;
    term.segments = losses.segments;
    term.advantages.assign(losses.segments.size(), 1.0f);
    change(term);
    CHECK_FAILS(code, Objective(losses.forest, {term}));
  };
  CHECK_FAILS(ErrorCode::InvalidArgument, Objective(losses.forest, {}));
  refuse([](PolicyTerm& t) { t.segments[0] = 99; });
  refuse([](PolicyTerm& t) { t.segments[0] = t.segments[1]; });
  refuse([](PolicyTerm& t) { t.advantages.pop_back(); });
  refuse([](PolicyTerm& t) { t.advantages[0] = NAN; }, ErrorCode::NonFinite);
  refuse([](PolicyTerm& t) { t.old_logprobs.assign(3, 0.0f); });
  refuse([&](PolicyTerm& t) { t.old_logprobs.assign(losses.forest.size(), NAN); }, ErrorCode::NonFinite);
  refuse([](PolicyTerm& t) { t.aggregation = Aggregation::Constant; });
  refuse([](PolicyTerm& t) { t.normaliser = 0.0; });
  refuse([](PolicyTerm& t) { t.kl_coefficient = 0.1; });
  refuse([](PolicyTerm& t) { t.dual_clip = 0.5; });
  refuse([](PolicyTerm& t) { t.clip_low = -0.1; });
  CrossEntropyTerm weights;
  weights.weights.assign(losses.forest.size(), 1.0f);  // the root's first token has no prediction
  CHECK_FAILS(ErrorCode::InvalidArgument, Objective(losses.forest, {weights}));
  weights.weights.assign(losses.forest.size(), 0.0f);  // nothing to learn: no normaliser
  CHECK_FAILS(ErrorCode::InvalidArgument, Objective(losses.forest, {weights}));
}
