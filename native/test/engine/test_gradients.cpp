#include <cmath>

#include "core/error.h"
#include "tiny_models.h"
#include "../test.h"

using namespace foretoken;
using namespace foretoken::test;

namespace {

/// A loss with every ingredient: cross-entropy, clipped policy with old log-probs, KL and an entropy bonus.
std::vector<LossTerm> mixed_terms(Engine& engine, const TokenForest& forest) {
  const std::vector<float> logprobs = engine.score(forest, {}, {}).logprobs;
  CrossEntropyTerm cross_entropy;
  cross_entropy.coefficient = 0.3;
  PolicyTerm policy;
  policy.segments = {4, 5, 6, 7, 8};
  policy.advantages = {1.0f, -0.5f, 0.7f, -1.2f, 0.4f};
  policy.old_logprobs = logprobs;
  for (std::size_t i = 0; i < logprobs.size(); ++i)
    policy.old_logprobs[i] = std::isnan(logprobs[i]) ? 0.0f : logprobs[i] + 0.1f * std::sin(static_cast<float>(i));
  policy.reference_logprobs = policy.old_logprobs;
  policy.clip_high = 0.28;
  policy.kl_coefficient = 0.2;
  policy.entropy_coefficient = 0.05;
  return {cross_entropy, policy};
}

double norm(const std::vector<float>& x) {
  double sum = 0;
  for (const float value : x) sum += static_cast<double>(value) * value;
  return std::sqrt(sum);
}

double distance(const std::vector<float>& x, const std::vector<float>& y) {
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) sum += (static_cast<double>(x[i]) - y[i]) * (static_cast<double>(x[i]) - y[i]);
  return std::sqrt(sum);
}

/// Largest distance between two engines' gradients, relative to each tensor's norm (or to a thousandth of the largest:
/// a tensor whose true gradient vanishes, as a key's bias has, holds rounding only).
double gradient_distance(Engine& a, Engine& b) {
  double largest = 0, worst = 0;
  for (const ParameterInfo& parameter : a.parameters()) largest = std::max(largest, norm(a.read(parameter.name, TensorKind::Gradient)));
  for (const ParameterInfo& parameter : a.parameters()) {
    const std::vector<float> x = a.read(parameter.name, TensorKind::Gradient), y = b.read(parameter.name, TensorKind::Gradient);
    worst = std::max(worst, distance(x, y) / std::max(norm(x), 1e-3 * largest));
  }
  return worst;
}

}  // namespace

TEST("the reference's gradients are the finite differences of its loss") {
  for (const TinyModel& model : tiny_models()) {
    const auto engine = tiny_engine(model, reference());
    const TokenForest forest = some_forest(engine->config().vocab_size);
    const std::vector<LossTerm> terms = mixed_terms(*engine, forest);
    engine->accumulate(forest, terms, {}, {});
    const std::vector<std::vector<float>> gradients = gradients_of(*engine);
    const std::vector<ParameterInfo> parameters = engine->parameters();
    for (std::size_t p = 0; p < parameters.size(); ++p) {
      const std::vector<float> values = engine->read(parameters[p].name, TensorKind::Weight);
      const std::size_t e = (values.size() * 7 / 11) % values.size();
      // Steps that float32 holds exactly, since weights are written in it.
      constexpr float step = 0x1p-11f;
      std::vector<float> moved = values;
      const auto loss_at = [&](float delta) {
        moved[e] = values[e] + delta;
        engine->write(parameters[p].name, moved);
        return std::pair{engine->accumulate(forest, terms, {}, {}).loss, static_cast<double>(moved[e])};
      };
      const auto [above, x_above] = loss_at(step);
      const auto [below, x_below] = loss_at(-step);
      engine->write(parameters[p].name, values);
      const double difference = (above - below) / (x_above - x_below);
      // Central differences err by step² times the third derivative.
      if (std::fabs(gradients[p][e] - difference) > 1e-5 + 1e-4 * std::fabs(difference))
        throw Failure{std::string(model.name) + ": " + parameters[p].name + ": gradient " + std::to_string(gradients[p][e]) +
                      ", finite difference " + std::to_string(difference)};
    }
  }
}

TEST("the CPU's log-probs and gradients are the reference's within float32") {
  for (const TinyModel& model : tiny_models()) {
    const auto oracle = tiny_engine(model, reference()), engine = tiny_engine(model, cpu());
    const TokenForest forest = some_forest(engine->config().vocab_size);
    const std::vector<LossTerm> terms = mixed_terms(*oracle, forest);
    const std::vector<float> a = oracle->score(forest, {}, {}).logprobs, b = engine->score(forest, {}, {}).logprobs;
    for (std::size_t i = 0; i < a.size(); ++i)
      if (!std::isnan(a[i])) CHECK_CLOSE(b[i], a[i], 2e-5);
    CHECK_CLOSE(engine->accumulate(forest, terms, {}, {}).loss, oracle->accumulate(forest, terms, {}, {}).loss, 2e-5);
    const double apart = gradient_distance(*oracle, *engine);
    if (!(apart < 1e-4)) throw Failure{std::string(model.name) + ": gradients are apart by " + std::to_string(apart)};
  }
}

TEST("bfloat16 gradients point where the reference's do") {
  for (const TinyModel& model : tiny_models()) {
    const auto oracle = tiny_engine(model, reference()), engine = tiny_engine(model, cpu(DType::BFloat16));
    const TokenForest forest = some_forest(engine->config().vocab_size);
    oracle->accumulate(forest, {CrossEntropyTerm{}}, {}, {});
    engine->accumulate(forest, {CrossEntropyTerm{}}, {}, {});
    // 8 bits of mantissa, errors of a few products in a row: a few per cent, far from the 100 % of a wrong formula.
    const double apart = gradient_distance(*oracle, *engine);
    if (!(apart < 0.08)) throw Failure{std::string(model.name) + ": gradients are apart by " + std::to_string(apart)};
  }
}

TEST("a shared forest has the gradient of its flattened sequences, within rounding") {
  for (const TinyModel& model : tiny_models()) {
    const auto shared = tiny_engine(model, cpu()), flat = tiny_engine(model, cpu());
    const TokenForest forest = some_forest(shared->config().vocab_size);
    PolicyTerm policy;
    policy.segments = {4, 5, 6, 7, 8};
    policy.advantages = {1.0f, -0.5f, 0.7f, -1.2f, 0.4f};
    TokenForest sequences;
    PolicyTerm flattened = policy;
    flattened.segments.clear();
    for (const std::int32_t segment : policy.segments) {
      std::vector<std::int32_t> path = path_tokens(forest, segment);
      const auto length = static_cast<std::size_t>(forest.segments()[segment].length);
      const std::int32_t context = sequences.add(-1, {path.begin(), path.end() - static_cast<std::ptrdiff_t>(length)});
      flattened.segments.push_back(sequences.add(context, {path.end() - static_cast<std::ptrdiff_t>(length), path.end()}));
    }
    const AccumulateResult a = shared->accumulate(forest, {policy}, {}, {}), b = flat->accumulate(sequences, {flattened}, {}, {});
    CHECK(a.tokens < b.tokens);
    CHECK_CLOSE(a.loss, b.loss, 1e-12);
    CHECK(gradient_distance(*shared, *flat) < 1e-5);
  }
}

TEST("micro-batches add up to the gradient of the whole batch") {
  for (const TinyModel& model : tiny_models()) {
    const auto whole = tiny_engine(model, cpu());
    const TokenForest forest = some_forest(whole->config().vocab_size);
    const std::vector<LossTerm> terms = mixed_terms(*whole, forest);
    const AccumulateResult all = whole->accumulate(forest, terms, {}, {});
    CHECK_EQ(all.micro_batches, 1);
    for (const std::int64_t tokens : {1, 30, 50, 70}) {
      const auto cut = tiny_engine(model, cpu());
      AccumulateOptions options;
      options.batch_tokens = tokens;
      const AccumulateResult parts = cut->accumulate(forest, terms, options, {});
      CHECK(parts.micro_batches > 1);
      CHECK_CLOSE(parts.loss, all.loss, 1e-12);
      CHECK(gradient_distance(*whole, *cut) < 1e-5);
    }
  }
}

TEST("gspo sees a whole sequence, however the head is cut") {
  const TinyModel& model = tiny_models()[0];
  const auto a = tiny_engine(model, cpu()), b = tiny_engine(model, reference());
  const TokenForest forest = some_forest(a->config().vocab_size);
  std::vector<LossTerm> terms = mixed_terms(*b, forest);
  std::get<PolicyTerm>(terms[1]).loss = PolicyLoss::Gspo;
  CHECK_CLOSE(a->accumulate(forest, terms, {}, {}).loss, b->accumulate(forest, terms, {}, {}).loss, 2e-5);
  CHECK(gradient_distance(*b, *a) < 1e-4);
}
