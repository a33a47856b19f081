#include <cmath>
#include <cstring>

#include "core/error.h"
#include "test/cuda/emulated.h"
#include "test/files.h"
#include "test/test.h"

// The engine over the CUDA library whose devices are emulated: every call crosses the library's border.
namespace foretoken::test {
namespace {

constexpr DType kDTypes[] = {DType::Float32, DType::BFloat16};

std::vector<float> logprobs(Engine& engine, const TokenForest& forest, double temperature = 1) {
  ScoreOptions options;
  options.temperature = temperature;
  return engine.score(forest, options, {}).logprobs;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

std::vector<std::vector<float>> tensors(Engine& engine, TensorKind kind) {
  std::vector<std::vector<float>> all;
  for (const ParameterInfo& parameter : engine.parameters()) all.push_back(engine.read(parameter.name, kind));
  return all;
}

TEST("cuda engine: log-probs and gradients are the CPU's within float32") {
  for (const TinyModel& model : tiny_models()) {
    const auto cuda = tiny_engine(model, emulated()), cpu_engine = tiny_engine(model, cpu());
    const TokenForest forest = some_forest(cuda->config().vocab_size);
    const std::vector<float> actual = logprobs(*cuda, forest), expected = logprobs(*cpu_engine, forest);
    for (std::size_t i = 0; i < expected.size(); ++i)
      if (!std::isnan(expected[i])) CHECK_CLOSE(actual[i], expected[i], 2e-5);
    for (Engine* engine : {cuda.get(), cpu_engine.get()}) engine->accumulate(forest, {CrossEntropyTerm{}}, {}, {});
    const auto gradients = tensors(*cuda, TensorKind::Gradient), oracle = tensors(*cpu_engine, TensorKind::Gradient);
    for (std::size_t p = 0; p < oracle.size(); ++p) {
      double difference = 0, norm = 0;
      for (std::size_t i = 0; i < oracle[p].size(); ++i) {
        difference += std::pow(double{gradients[p][i]} - oracle[p][i], 2);
        norm += std::pow(double{oracle[p][i]}, 2);
      }
      CHECK(std::sqrt(difference) <= 1e-5 * std::sqrt(norm) + 1e-7);
    }
  }
}

TEST("cuda engine: alone, in a forest, flattened and in small batches a log-prob has the same bits") {
  for (const TinyModel& model : tiny_models())
    for (const DType dtype : kDTypes) {
      const auto engine = tiny_engine(model, emulated(dtype));
      EngineOptions small = emulated(dtype);
      small.batch_tokens = 7;
      const TokenForest forest = some_forest(engine->config().vocab_size);
      const std::vector<float> shared = logprobs(*engine, forest);
      CHECK(same_bits(logprobs(*tiny_engine(model, small), forest), shared));
      TokenForest flat;
      for (std::int32_t s = 0; s < static_cast<std::int32_t>(forest.segments().size()); ++s)
        flat.add(-1, path_tokens(forest, s));
      const std::vector<float> flattened = logprobs(*engine, flat);
      for (std::size_t s = 0; s < forest.segments().size(); ++s) {
        const Segment &segment = forest.segments()[s], &path = flat.segments()[s];
        for (std::int32_t i = segment.start_position == 0; i < segment.length; ++i)
          CHECK_EQ(shared[segment.begin + i], flattened[path.begin + segment.start_position + i]);
      }
      TokenForest alone;
      alone.add(-1, path_tokens(forest, 4));
      const std::vector<float> one = logprobs(*engine, alone);
      const std::int32_t begin = flat.segments()[4].begin;
      CHECK(same_bits({one.begin() + 1, one.end()}, {flattened.begin() + begin + 1, flattened.begin() + begin + alone.size()}));
    }
}

TEST("cuda engine: a log-prob as sampled is the log-prob as scored and as trained") {
  for (const TinyModel& model : tiny_models())
    for (const DType dtype : kDTypes) {
      const auto engine = tiny_engine(model, emulated(dtype));
      TokenForest forest = some_forest(engine->config().vocab_size);
      SampleOptions options;
      options.from = {1, 3, 9};
      options.n = 2;
      options.max_tokens = 12;
      options.temperature = 0.85;
      options.top_p = 0.95;
      options.seed = 5;
      const SampleResult result = engine->sample(forest, options, {});
      std::vector<float> sampled;
      const auto before = static_cast<std::size_t>(forest.size());
      PolicyTerm term;
      term.old_logprobs.assign(before, 0.0f);
      for (const Rollout& rollout : result.rollouts) {
        term.segments.push_back(forest.add(rollout.segment, rollout.tokens));
        sampled.insert(sampled.end(), rollout.logprobs.begin(), rollout.logprobs.end());
      }
      term.advantages.assign(result.rollouts.size(), 1.0f);
      term.old_logprobs.insert(term.old_logprobs.end(), sampled.begin(), sampled.end());
      const std::vector<float> scored = logprobs(*engine, forest, options.temperature);
      CHECK(same_bits(sampled, {scored.begin() + static_cast<std::ptrdiff_t>(before), scored.end()}));
      AccumulateOptions accumulate;
      accumulate.temperature = options.temperature;
      const TermStatistics ratio = engine->accumulate(forest, {term}, accumulate, {}).terms[0];
      CHECK_EQ(ratio.ratio_max, 1.0);
      StepOptions step;
      step.learning_rate = 1e-3;
      CHECK(engine->step(step).grad_norm > 0);
      CHECK(!same_bits(logprobs(*engine, forest, options.temperature), scored));
    }
}

TEST("cuda engine: a saved training state continues with the same bits") {
  for (const bool narrow : {false, true}) {
    EngineOptions options = emulated(DType::BFloat16);
    options.bfloat16_state = narrow;
    const TemporaryDirectory directory;
    const std::string path = (directory / "state").string();
    const auto a = tiny_engine(tiny_models()[1], options), b = tiny_engine(tiny_models()[1], options, 99);
    TokenForest forest;
    forest.add(-1, some_tokens(19, a->config().vocab_size, 1));
    const auto train = [&](Engine& engine) {
      engine.accumulate(forest, {CrossEntropyTerm{}}, {}, {});
      StepOptions step;
      step.learning_rate = 1e-2;
      step.max_grad_norm = 1;
      engine.step(step);
    };
    train(*a);
    a->save_training_state(path);
    b->load_training_state(path);
    for (Engine* engine : {a.get(), b.get()}) train(*engine);
    CHECK(tensors(*a, TensorKind::Weight) == tensors(*b, TensorKind::Weight));
  }
}

TEST("cuda engine: a gradient that is not finite is named, and weights stay") {
  const auto engine = tiny_engine(tiny_models()[0], emulated());
  TokenForest forest;
  forest.add(-1, some_tokens(9, engine->config().vocab_size, 1));
  CrossEntropyTerm term;
  term.coefficient = 1e38;
  engine->accumulate(forest, {term}, {}, {});
  engine->accumulate(forest, {term}, {}, {});
  const auto before = tensors(*engine, TensorKind::Weight);
  StepOptions step;
  step.learning_rate = 1;
  bool finite = true;
  for (const std::vector<float>& gradient : tensors(*engine, TensorKind::Gradient))
    for (const float value : gradient) finite &= std::isfinite(value);
  CHECK(!finite);
  CHECK_FAILS(ErrorCode::NonFinite, engine->step(step));
  CHECK(tensors(*engine, TensorKind::Weight) == before);
}

}  // namespace
}  // namespace foretoken::test
