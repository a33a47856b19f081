#include <cmath>
#include <cstring>

#include "tiny_models.h"
#include "../test.h"

using namespace foretoken;
using namespace foretoken::test;

namespace {

/// Bits, so that NaN equals NaN and 0 differs from -0.
bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

constexpr DType kDTypes[] = {DType::Float32, DType::BFloat16};

ScoreResult score(Engine& engine, const TokenForest& forest, double temperature = 0.8) {
  ScoreOptions options;
  options.temperature = temperature;
  options.top_entropy = 16;
  options.argmax = true;
  return engine.score(forest, options, {});
}

}  // namespace

TEST("a forest and its flattened sequences score alike, bit for bit") {
  for (const TinyModel& model : tiny_models())
    for (const DType dtype : kDTypes) {
      const auto engine = tiny_engine(model, cpu(dtype));
      const TokenForest forest = some_forest(engine->config().vocab_size);
      const ScoreResult shared = score(*engine, forest);
      for (std::size_t s = 0; s < forest.segments().size(); ++s) {
        const Segment& segment = forest.segments()[s];
        TokenForest flat;
        flat.add(-1, path_tokens(forest, static_cast<std::int32_t>(s)));
        const ScoreResult alone = score(*engine, flat);
        for (std::int32_t i = 0; i < segment.length; ++i) {
          const auto in_forest = static_cast<std::size_t>(segment.begin + i);
          const auto in_flat = static_cast<std::size_t>(segment.start_position + i);
          if (in_flat == 0) { CHECK(std::isnan(shared.logprobs[in_forest])); continue; }
          CHECK_EQ(shared.logprobs[in_forest], alone.logprobs[in_flat]);
          CHECK_EQ(shared.entropy[in_forest], alone.entropy[in_flat]);
          CHECK_EQ(shared.top_entropy[in_forest], alone.top_entropy[in_flat]);
          CHECK_EQ(shared.argmax[in_forest], alone.argmax[in_flat]);
        }
      }
    }
}

TEST("neither micro-batches nor threads change a bit of a log-prob") {
  for (const TinyModel& model : tiny_models())
    for (const DType dtype : kDTypes) {
      std::vector<float> expected;
      for (const int threads : {1, 2, 3})
        for (const std::int64_t batch_tokens : {1, 2, 7, 16, 33, 40, 64, 100, 4096}) {
          EngineOptions options = cpu(dtype, threads);
          options.batch_tokens = batch_tokens;
          const auto engine = tiny_engine(model, options);
          const std::vector<float> logprobs = score(*engine, some_forest(engine->config().vocab_size)).logprobs;
          if (expected.empty()) expected = logprobs;
          CHECK(same_bits(logprobs, expected));
        }
    }
}

TEST("a log-prob as sampled is the log-prob as scored and as trained: the ratio is exactly 1") {
  // The reciprocals of 0.85 and 1.1 differ in their last bit when the temperature is rounded to float32 beforehand.
  for (const double temperature : {0.8, 0.85, 1.1})
    for (const TinyModel& model : tiny_models())
      for (const DType dtype : kDTypes) {
        const auto engine = tiny_engine(model, cpu(dtype));
        TokenForest forest = some_forest(engine->config().vocab_size);
        SampleOptions options;
        options.from = {1, 3, 2, 9, 9};
        options.n = 3;
        options.max_tokens = 40;
        options.temperature = temperature;
        options.seed = 5;
        const SampleResult result = engine->sample(forest, options, {});
        CHECK_EQ(result.rollouts.size(), std::size_t{15});
        std::vector<float> sampled;
        const auto before = static_cast<std::size_t>(forest.size());
        for (const Rollout& rollout : result.rollouts) {
          CHECK_EQ(rollout.tokens.size(), std::size_t{40});
          forest.add(rollout.segment, rollout.tokens);
          sampled.insert(sampled.end(), rollout.logprobs.begin(), rollout.logprobs.end());
        }
        const std::vector<float> scored = score(*engine, forest, temperature).logprobs;
        PolicyTerm on_policy;
        for (std::size_t r = 0; r < result.rollouts.size(); ++r)
          on_policy.segments.push_back(static_cast<std::int32_t>(forest.segments().size() - result.rollouts.size() + r));
        on_policy.advantages.assign(result.rollouts.size(), 1.0f);
        on_policy.old_logprobs.assign(before, 0.0f);
        on_policy.old_logprobs.insert(on_policy.old_logprobs.end(), sampled.begin(), sampled.end());
        AccumulateOptions accumulate;
        accumulate.temperature = temperature;
        const TermStatistics ratio = engine->accumulate(forest, {on_policy}, accumulate, {}).terms[0];
        CHECK_EQ(ratio.ratio_max, 1.0);
        CHECK_EQ(ratio.approximate_kl, 0.0);
        CHECK(same_bits(sampled, {scored.begin() + static_cast<std::ptrdiff_t>(before), scored.end()}));
      }
}

TEST("what a rollout says depends on its prefix, the seed and its own number, not on the batch around it") {
  for (const TinyModel& model : tiny_models())
    for (const DType dtype : kDTypes) {
      SampleOptions options;
      options.from = {0, 1, 3, 9};
      options.n = 2;
      options.max_tokens = 30;
      options.seed = 9;
      options.rollout_ids = {10, 11, 12, 13, 14, 15, 16, 17};
      std::vector<Rollout> expected;
      const auto compare = [&](const SampleOptions& changed, const EngineOptions& engine_options) {
        const auto engine = tiny_engine(model, engine_options);
        const SampleResult result = engine->sample(some_forest(engine->config().vocab_size), changed, {});
        if (expected.empty()) expected = result.rollouts;
        for (std::size_t i = 0; i < result.rollouts.size(); ++i)
          for (std::size_t j = 0; j < expected.size(); ++j)
            if (changed.rollout_ids[i] == options.rollout_ids[j] && result.rollouts[i].segment == expected[j].segment) {
              CHECK(result.rollouts[i].tokens == expected[j].tokens);
              CHECK(same_bits(result.rollouts[i].logprobs, expected[j].logprobs));
            }
        return result.statistics;
      };
      compare(options, cpu(dtype));
      compare(options, cpu(dtype, 1));
      for (const int sequences : {1, 3, 5}) {
        SampleOptions fewer = options;
        fewer.max_sequences = sequences;
        compare(fewer, cpu(dtype));
      }
      EngineOptions small = cpu(dtype);
      small.batch_tokens = 5;
      compare(options, small);
      small = cpu(dtype);
      small.cache_tokens = 112;
      CHECK(compare(options, small).waves > 1);
      SampleOptions alone = options;
      alone.from = {3};
      alone.rollout_ids = {14, 15};
      compare(alone, cpu(dtype));
      SampleOptions reversed = options;
      reversed.from = {9, 3, 1, 0};
      reversed.rollout_ids = {16, 17, 14, 15, 12, 13, 10, 11};
      compare(reversed, cpu(dtype));
    }
}

TEST("a temperature of zero takes the most likely token, whose log-prob score gives, too") {
  const auto engine = tiny_engine(tiny_models()[0], cpu());
  TokenForest forest;
  forest.add(-1, some_tokens(5, 67, 1));
  SampleOptions options;
  options.from = {0};
  options.max_tokens = 12;
  options.temperature = 0;
  const Rollout rollout = engine->sample(forest, options, {}).rollouts[0];
  forest.add(0, rollout.tokens);
  const ScoreResult result = score(*engine, forest, 1);
  for (std::size_t i = 0; i < rollout.tokens.size(); ++i) {
    CHECK_EQ(result.argmax[5 + i], rollout.tokens[i]);
    CHECK_EQ(result.logprobs[5 + i], rollout.logprobs[i]);
  }
}

TEST("gradients do not depend on the number of threads, and recomputed blocks give the same ones") {
  for (const TinyModel& model : tiny_models())
    for (const DType dtype : kDTypes) {
      std::vector<std::vector<float>> expected;
      for (const int threads : {1, 2, 3})
        for (const bool recompute : {false, true}) {
          const auto engine = tiny_engine(model, cpu(dtype, threads));
          AccumulateOptions options;
          options.recompute = recompute;
          engine->accumulate(some_forest(engine->config().vocab_size), {CrossEntropyTerm{}}, options, {});
          const std::vector<std::vector<float>> gradients = gradients_of(*engine);
          if (expected.empty()) expected = gradients;
          for (std::size_t p = 0; p < gradients.size(); ++p) CHECK(same_bits(gradients[p], expected[p]));
        }
    }
}

TEST("activations that sampling has kept give the gradients of a forward pass of its own, bit for bit") {
  for (const TinyModel& model : tiny_models())
    for (const DType dtype : kDTypes)
      for (const std::int64_t batch_tokens : {48, 4096}) {
        std::vector<std::vector<float>> expected;
        for (const bool keep : {false, true})
          for (const bool recompute : {false, true}) {
            EngineOptions engine_options = cpu(dtype);
            engine_options.batch_tokens = batch_tokens;
            const auto engine = tiny_engine(model, engine_options);
            TokenForest forest = some_forest(engine->config().vocab_size);
            SampleOptions options;
            options.from = {1, 3, 2, 9, 9};
            options.n = 3;
            options.max_tokens = 20;
            options.seed = 5;
            options.keep_activations = keep;
            options.max_sequences = 6;                                        // several waves
            options.stop.tokens = {3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37};  // of different lengths
            const SampleResult result = engine->sample(forest, options, {});
            CHECK_EQ(result.statistics.kept_tokens > 0, keep);
            PolicyTerm term;
            for (std::size_t r = 0; r < result.rollouts.size(); r += 2) {  // not all are trained on
              term.segments.push_back(forest.add(result.rollouts[r].segment, result.rollouts[r].tokens));
              term.advantages.push_back(r % 4 == 0 ? 1.0f : -0.5f);
            }
            AccumulateOptions accumulate;
            accumulate.recompute = recompute;
            const AccumulateResult trained = engine->accumulate(forest, {term}, accumulate, {});
            CHECK_EQ(trained.kept_tokens, keep ? trained.tokens : 0);
            const std::vector<std::vector<float>> gradients = gradients_of(*engine);
            if (expected.empty()) expected = gradients;
            for (std::size_t p = 0; p < gradients.size(); ++p) CHECK(same_bits(gradients[p], expected[p]));
          }
      }
}

TEST("activations are kept as far as memory allows, and micro-batches without them have the same gradients") {
  EngineOptions engine_options = cpu(DType::BFloat16);
  engine_options.batch_tokens = 40;
  SampleOptions options;
  options.n = 2;
  options.max_tokens = 16;
  options.keep_activations = true;
  std::size_t limit = 0;
  std::vector<float> expected;
  for (const std::size_t beyond : {std::size_t{1} << 30, std::size_t{560} << 10, std::size_t{0}}) {
    engine_options.memory_limit = limit + beyond;
    const auto engine = tiny_engine(tiny_models()[0], engine_options);
    if (limit == 0)
      for (const MemoryItem& item : engine->memory_plan()) limit += item.bytes;
    TokenForest forest;
    options.from.clear();
    for (const std::uint32_t context : {1, 2, 3, 4}) options.from.push_back(forest.add(-1, some_tokens(8, 67, context)));
    options.max_sequences = 4;  // the first contexts' rollouts end before the others' begin
    const SampleResult sampled = engine->sample(forest, options, {});
    PolicyTerm term;
    for (const Rollout& rollout : sampled.rollouts) {
      term.segments.push_back(forest.add(rollout.segment, rollout.tokens));
      term.advantages.push_back(1.0f);
    }
    const AccumulateResult trained = engine->accumulate(forest, {term}, {}, {});
    CHECK_EQ(trained.micro_batches, std::int64_t{4});
    if (beyond == 0) CHECK_EQ(trained.kept_tokens, std::int64_t{0});
    else if (beyond == std::size_t{1} << 30) CHECK_EQ(trained.kept_tokens, trained.tokens);
    else CHECK(trained.kept_tokens > 0 && trained.kept_tokens < trained.tokens);
    const std::vector<float> gradient = engine->read(engine->parameters()[1].name, TensorKind::Gradient);
    if (expected.empty()) expected = gradient;
    CHECK(same_bits(gradient, expected));
  }
}

TEST("kept activations serve only paths that were sampled, and only until the weights change") {
  const auto engine = tiny_engine(tiny_models()[0], cpu());
  TokenForest forest;
  forest.add(-1, some_tokens(21, 67, 1));
  SampleOptions options;
  options.from = {0};
  options.n = 2;
  options.max_tokens = 12;
  options.keep_activations = true;
  const SampleResult sampled = engine->sample(forest, options, {});
  CHECK_EQ(sampled.statistics.kept_tokens, std::int64_t{21 + 2 * 11});
  forest.add(0, sampled.rollouts[0].tokens);
  const auto kept = [&](const TokenForest& trained) {
    return engine->accumulate(trained, {CrossEntropyTerm{}}, {}, {}).kept_tokens;
  };
  CHECK_EQ(kept(forest), std::int64_t{32});  // the last token predicts nothing

  TokenForest flat;  // the same path in another shape
  std::vector<std::int32_t> path = forest.tokens();
  flat.add(-1, path);
  CHECK_EQ(kept(flat), std::int64_t{32});
  TokenForest changed;
  path[20] = (path[20] + 1) % 67;
  changed.add(-1, path);
  CHECK_EQ(kept(changed), std::int64_t{0});
  TokenForest longer;  // a token whose predecessor was never fed
  path = flat.tokens();
  path.push_back(1);
  longer.add(-1, path);
  CHECK_EQ(kept(longer), std::int64_t{0});

  StepOptions step;
  step.learning_rate = 1e-3;
  engine->step(step);
  CHECK_EQ(kept(forest), std::int64_t{0});
  engine->sample(forest, options, {});
  options.keep_activations = false;
  engine->sample(forest, options, {});
  CHECK_EQ(kept(forest), std::int64_t{0});
}
