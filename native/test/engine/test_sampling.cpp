#include <algorithm>
#include <cmath>
#include <map>

#include "core/error.h"
#include "tiny_models.h"
#include "../test.h"

using namespace foretoken;
using namespace foretoken::test;

namespace {

TokenForest one_context(std::int64_t vocabulary) {
  TokenForest forest;
  forest.add(-1, some_tokens(19, vocabulary, 1));
  return forest;
}

SampleOptions from_context(int n, int max_tokens) {
  SampleOptions options;
  options.from = {0};
  options.n = n;
  options.max_tokens = max_tokens;
  return options;
}

/// Token t spells the letters of its number in base 26, so that texts span tokens.
void give_letters(Engine& engine) {
  std::vector<std::uint8_t> bytes;
  std::vector<std::int64_t> offsets{0};
  for (std::int64_t t = 0; t < engine.config().vocab_size; ++t) {
    for (std::int64_t rest = t; ; rest /= 26) {
      bytes.push_back(static_cast<std::uint8_t>('a' + rest % 26));
      if (rest < 26) break;
    }
    offsets.push_back(static_cast<std::int64_t>(bytes.size()));
  }
  engine.set_token_bytes(bytes, offsets);
}

std::string letters(std::int32_t token) {
  std::string text;
  for (std::int32_t rest = token; ; rest /= 26) {
    text += static_cast<char>('a' + rest % 26);
    if (rest < 26) return text;
  }
}

}  // namespace

TEST("sampled tokens follow the model's distribution") {
  const auto engine = tiny_engine(tiny_models()[1], cpu());
  const TokenForest forest = one_context(50);
  ScoreOptions score;
  score.logit_tokens = {18};
  const std::vector<float> logits = engine->score(forest, score, {}).logits;
  constexpr double temperature = 0.7;
  std::vector<double> p;
  double sum = 0;
  for (const float logit : logits) sum += p.emplace_back(std::exp(logit / temperature));
  SampleOptions options = from_context(20000, 1);
  options.temperature = temperature;
  std::vector<double> count(50, 0.0);
  for (const Rollout& rollout : engine->sample(forest, options, {}).rollouts) {
    count[rollout.tokens[0]] += 1;
    CHECK_CLOSE(rollout.logprobs[0], std::log(p[rollout.tokens[0]] / sum), 1e-4);
  }
  // Pearson's statistic over tokens expected at least 5 times has a mean of its degrees of freedom; five standard
  // deviations above it happen once in millions, and the seed is fixed.
  double statistic = 0;
  int degrees = -1;
  for (std::size_t t = 0; t < p.size(); ++t) {
    const double expected = 20000 * p[t] / sum;
    if (expected < 5) continue;
    statistic += (count[t] - expected) * (count[t] - expected) / expected;
    ++degrees;
  }
  CHECK(degrees > 10);
  CHECK(statistic < degrees + 5 * std::sqrt(2.0 * degrees));
}

TEST("a stop token ends a rollout and is its last token, unless it comes before minTokens") {
  const auto engine = tiny_engine(tiny_models()[1], cpu());
  SampleOptions options = from_context(64, 40);
  options.stop.tokens = {3, 5, 8, 13};
  const auto stops = [&](std::int32_t token) {
    return std::find(options.stop.tokens.begin(), options.stop.tokens.end(), token) != options.stop.tokens.end();
  };
  for (const int least : {0, 12}) {
    options.min_tokens = least;
    int stopped = 0;
    for (const Rollout& rollout : engine->sample(one_context(50), options, {}).rollouts) {
      const auto length = static_cast<int>(rollout.tokens.size());
      for (int i = 0; i + 1 < length; ++i) CHECK(!stops(rollout.tokens[i]));
      CHECK_EQ(rollout.stop == StopReason::Token, stops(rollout.tokens.back()));
      if (rollout.stop == StopReason::Token) { CHECK(length > least); ++stopped; }
      else CHECK_EQ(length, 40);
    }
    CHECK(stopped > 0);
  }
}

TEST("a stop text ends a rollout with the token that completes it, also across tokens") {
  const auto engine = tiny_engine(tiny_models()[1], cpu());
  give_letters(*engine);
  SampleOptions options = from_context(96, 60);
  options.stop.texts = {"ab", "cbb", "zq", "fg", "hk", "ob"};
  int stopped = 0, across = 0;
  for (const Rollout& rollout : engine->sample(one_context(50), options, {}).rollouts) {
    std::string text;
    const auto found = [&] {
      return std::any_of(options.stop.texts.begin(), options.stop.texts.end(),
                         [&](const std::string& stop) { return text.find(stop) != std::string::npos; });
    };
    for (std::size_t i = 0; i + 1 < rollout.tokens.size(); ++i) {
      text += letters(rollout.tokens[i]);
      CHECK(!found());
    }
    text += letters(rollout.tokens.back());
    CHECK_EQ(found(), rollout.stop == StopReason::Text);
    if (rollout.stop != StopReason::Text) continue;
    ++stopped;
    const std::string last = letters(rollout.tokens.back());
    if (std::none_of(options.stop.texts.begin(), options.stop.texts.end(),
                     [&](const std::string& stop) { return last.find(stop) != std::string::npos; }))
      ++across;
  }
  CHECK(stopped > 0);
  CHECK(across > 0);
}

TEST("banned tokens never appear, and log-probs stay those of the whole distribution") {
  const auto engine = tiny_engine(tiny_models()[1], cpu());
  SampleOptions options = from_context(32, 20);
  for (std::int32_t t = 0; t < 35; ++t) options.banned.push_back(t);
  TokenForest forest = one_context(50);
  std::vector<float> sampled;
  for (const Rollout& rollout : engine->sample(forest, options, {}).rollouts) {
    for (const std::int32_t token : rollout.tokens) CHECK(token >= 35);
    sampled.insert(sampled.end(), rollout.logprobs.begin(), rollout.logprobs.end());
    forest.add(0, rollout.tokens);
  }
  const std::vector<float> scored = engine->score(forest, {}, {}).logprobs;
  CHECK(std::equal(sampled.begin(), sampled.end(), scored.begin() + 19));
}

TEST("a store that cannot hold one context and one rollout is refused with numbers") {
  EngineOptions options = cpu();
  options.cache_tokens = 48;
  const auto engine = tiny_engine(tiny_models()[1], options);
  CHECK_FAILS(ErrorCode::OutOfMemory, engine->sample(one_context(50), from_context(1, 40), {}));
  CHECK_EQ(engine->sample(one_context(50), from_context(1, 3), {}).rollouts.size(), std::size_t{1});
}

TEST("requests that make no sense are refused by name") {
  const auto engine = tiny_engine(tiny_models()[1], cpu());
  const TokenForest forest = one_context(50);
  const auto refuse = [&](auto change) {
    SampleOptions options = from_context(1, 4);
    change(options);
    CHECK_FAILS(ErrorCode::InvalidArgument, engine->sample(forest, options, {}));
  };
  refuse([](SampleOptions& o) { o.from = {}; });
  refuse([](SampleOptions& o) { o.from = {1}; });
  refuse([](SampleOptions& o) { o.n = 0; });
  refuse([](SampleOptions& o) { o.max_tokens = 0; });
  refuse([](SampleOptions& o) { o.max_tokens = 300; });
  refuse([](SampleOptions& o) { o.min_tokens = 5; });
  refuse([](SampleOptions& o) { o.temperature = NAN; });
  refuse([](SampleOptions& o) { o.top_p = 0; });
  refuse([](SampleOptions& o) { o.min_p = 1.5; });
  refuse([](SampleOptions& o) { o.banned = {50}; });
  refuse([](SampleOptions& o) { o.stop.tokens = {-1}; });
  refuse([](SampleOptions& o) { o.stop.texts = {"x"}; });  // no token table
  refuse([](SampleOptions& o) { o.rollout_ids = {1, 2}; });
  refuse([](SampleOptions& o) { for (std::int32_t t = 0; t < 50; ++t) o.banned.push_back(t); });
}

TEST("an abort flag ends each verb with Aborted, and the engine goes on working") {
  const auto engine = tiny_engine(tiny_models()[1], cpu());
  const TokenForest forest = one_context(50);
  const std::atomic<bool> aborted{true};
  Control control;
  control.aborted = &aborted;
  CHECK_FAILS(ErrorCode::Aborted, engine->score(forest, {}, control));
  CHECK_FAILS(ErrorCode::Aborted, engine->sample(forest, from_context(2, 4), control));
  CHECK_FAILS(ErrorCode::Aborted, engine->accumulate(forest, {CrossEntropyTerm{}}, {}, control));
  CHECK_EQ(engine->sample(forest, from_context(2, 4), {}).rollouts.size(), std::size_t{2});
}
