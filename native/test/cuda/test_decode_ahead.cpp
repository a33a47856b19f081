#include <algorithm>
#include <cstring>

#include "test/cuda/emulated.h"
#include "test/test.h"

// Decoding on a device queues a step before the host has seen the tokens of the one before (RolloutScheduler).
namespace foretoken::test {
namespace {

SampleOptions options_for(const TokenForest& forest) {
  SampleOptions options;
  options.from = {0, 1, 3, 9};
  options.n = 3;
  options.max_tokens = 24;
  options.temperature = 0.9;
  options.seed = 4;
  CHECK(forest.segments().size() > 9);
  return options;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

TEST("decoding ahead: rollouts that end early are those without stop rules, cut off") {
  for (const TinyModel& model : tiny_models()) {
    const auto engine = tiny_engine(model, emulated(DType::BFloat16));
    const TokenForest forest = some_forest(engine->config().vocab_size);
    SampleOptions options = options_for(forest);
    const std::vector<Rollout> whole = engine->sample(forest, options, {}).rollouts;
    options.stop.tokens = {3, 5, 8, 13, 21, 34};
    const auto cut_as = [&](const std::vector<Rollout>& rollouts) {
      int ended = 0;
      CHECK_EQ(rollouts.size(), whole.size());
      for (std::size_t r = 0; r < rollouts.size(); ++r) {
        std::vector<std::int32_t> tokens = whole[r].tokens;
        const auto stop = std::find_first_of(tokens.begin(), tokens.end(), options.stop.tokens.begin(), options.stop.tokens.end());
        ended += stop != tokens.end();
        if (stop != tokens.end()) tokens.erase(stop + 1, tokens.end());
        CHECK(rollouts[r].tokens == tokens);
        CHECK(same_bits(rollouts[r].logprobs, {whole[r].logprobs.begin(), whole[r].logprobs.begin() + static_cast<std::ptrdiff_t>(tokens.size())}));
      }
      CHECK(ended > 0);
    };
    cut_as(engine->sample(forest, options, {}).rollouts);
    // Rollouts that join while others are under way, one at a time and in waves through a small store.
    for (const int sequences : {1, 5}) {
      options.max_sequences = sequences;
      cut_as(engine->sample(forest, options, {}).rollouts);
    }
    EngineOptions small = emulated(DType::BFloat16);
    small.cache_tokens = 64 * 4;
    options.max_sequences = 0;
    const SampleResult waves = tiny_engine(model, small)->sample(forest, options, {});
    CHECK(waves.statistics.waves > 1);
    cut_as(waves.rollouts);
  }
}

TEST("decoding ahead: rows that may stop and rows that may not draw from the same pass") {
  const auto engine = tiny_engine(tiny_models()[1], emulated());
  TokenForest forest = some_forest(engine->config().vocab_size);
  SampleOptions options = options_for(forest);
  options.stop.tokens = {3, 5, 8, 13, 21, 34};
  options.min_tokens = 6;
  options.max_sequences = 4;  // so that rollouts of different lengths decode together
  const SampleResult result = engine->sample(forest, options, {});
  const auto before = static_cast<std::ptrdiff_t>(forest.size());
  std::vector<float> sampled;
  int ended = 0;
  for (const Rollout& rollout : result.rollouts) {
    const auto first = std::find_first_of(rollout.tokens.begin(), rollout.tokens.end(), options.stop.tokens.begin(), options.stop.tokens.end());
    if (first != rollout.tokens.end()) {
      CHECK(first - rollout.tokens.begin() >= options.min_tokens);
      CHECK(first + 1 == rollout.tokens.end());
      ++ended;
    }
    forest.add(rollout.segment, rollout.tokens);
    sampled.insert(sampled.end(), rollout.logprobs.begin(), rollout.logprobs.end());
  }
  CHECK(ended > 0);
  ScoreOptions score;
  score.temperature = options.temperature;
  const std::vector<float> scored = engine->score(forest, score, {}).logprobs;
  CHECK(same_bits(sampled, {scored.begin() + before, scored.end()}));
}

}  // namespace
}  // namespace foretoken::test
