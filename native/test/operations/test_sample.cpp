#include <algorithm>
#include <limits>
#include <set>

#include "backend/sampling.h"
#include "test/operations/harness.h"

namespace foretoken::test {
namespace {

using Tokens = std::vector<std::int32_t>;

struct Draws {
  Tokens tokens;
  Values logprobs;
};

Draws sample(const BackendCase& backend, std::int64_t V, const Values& logits, const std::vector<SampleRow>& rows,
             const Tokens& banned = {}, const Tokens& stops = {}) {
  Workbench bench(backend);
  const std::int64_t n = static_cast<std::int64_t>(rows.size());
  auto* tokens = static_cast<std::int32_t*>(bench.bytes(n * sizeof(std::int32_t)));
  const View logprobs = bench.output(bench.accumulation(), 1, n);
  bench->sample(bench.input(bench.accumulation(), n, V, logits), bench.array(rows),
                {bench.array(banned), static_cast<std::int64_t>(banned.size()), bench.array(stops), static_cast<std::int64_t>(stops.size())},
                tokens, logprobs);
  return {bench.read_integers(tokens, n), bench.read(logprobs)};
}

/// `count` draws from one row of logits, at positions 0, 1, …
Draws sample_often(const BackendCase& backend, const Values& row, SampleRow options, int count,
                   const Tokens& banned = {}) {
  Values logits;
  std::vector<SampleRow> rows;
  for (int i = 0; i < count; ++i) {
    logits.insert(logits.end(), row.begin(), row.end());
    options.position = static_cast<std::uint32_t>(i);
    rows.push_back(options);
  }
  return sample(backend, static_cast<std::int64_t>(row.size()), logits, rows, banned);
}

Values logs(Values probabilities) {
  for (double& p : probabilities) p = std::log(p);
  return probabilities;
}

std::vector<SampleRow> some_rows(std::int64_t n) {
  std::vector<SampleRow> rows;
  for (std::uint32_t i = 0; i < n; ++i)
    rows.push_back({.seed = 7,
                    .rollout = i,
                    .position = 3 * i,
                    .temperature = i % 5 == 4 ? 0.0f : 0.7f,
                    .top_k = i % 2 ? 20 : 0,
                    .top_p = i % 3 == 1 ? 0.8f : 1.0f,
                    .min_p = i % 7 == 2 ? 0.05f : 0.0f});
  return rows;
}

TEST("sample: a backend draws what the reference draws, with logprob_forward's log-prob to the bit") {
  for_each_backend([](const BackendCase& backend) {
    const DType A = accumulation_of(backend);
    for (std::int64_t V : {2, 37, 1000, 3001}) {
      const std::int64_t n = 60;
      // Logits on a grid, so that equal ones occur; the draws are at fixed random numbers, none within rounding of a border.
      Values logits = normal(n * V, 1, 2.0);
      for (double& value : logits) value = std::round(value * 64) / 64;
      const std::vector<SampleRow> rows = some_rows(n);
      const Tokens banned = {1};
      const Draws expected = sample(reference_case(), V, logits, rows, banned),
                  actual = sample(backend, V, logits, rows, banned);
      CHECK(actual.tokens == expected.tokens);
      for (std::int64_t i = 0; i < n; ++i) {
        Workbench bench(backend);
        const View logprob = bench.output(A, 1, 1);
        bench->logprob_forward(bench.input(A, 1, V, rows_of(logits, V, i, 1)), inverse_temperature(rows[i].temperature),
                               {bench.array<std::int32_t>({0, 1}), bench.array<std::int32_t>({actual.tokens[i]}), 1},
                               logprob, bench.output(A, 1, 1), bench.output(A, 1, 1), View(), 0);
        const double again = bench.read(logprob)[0];
        CHECK_EQ(again, actual.logprobs[i]);
      }
    }
  });
}

TEST("sample: draws follow the tempered distribution") {
  for_each_backend([](const BackendCase& backend) {
    const Values p = {0.4, 0.05, 0.3, 0.25};  // at temperature 0.5 as their squares
    const int count = 4000;
    const Draws draws = sample_often(backend, logs(p), {.seed = 3, .rollout = 1, .temperature = 0.5f}, count);
    double total = 0, chi_square = 0;
    for (double value : p) total += value * value;
    for (std::int32_t token = 0; token < 4; ++token) {
      const double expected = count * p[token] * p[token] / total;
      const double observed = static_cast<double>(std::count(draws.tokens.begin(), draws.tokens.end(), token));
      chi_square += (observed - expected) * (observed - expected) / expected;
    }
    CHECK(chi_square < 16.3);  // 99.9 % of chi-square with 3 degrees of freedom
  });
}

TEST("sample: each filter keeps exactly the tokens it should") {
  struct Example {
    const char* what;
    SampleRow options;
    Tokens banned;
    std::set<std::int32_t> kept;
  };
  // Token 4 has the largest probability; 1 and 3 are equal.
  const Values logits = logs({0.05, 0.15, 0.10, 0.15, 0.40, 0.15 - 1e-3, 1e-3});
  const Example examples[] = {
      {"top-k 1", {.top_k = 1}, {}, {4}},
      {"top-k 2, the lower of equals", {.top_k = 2}, {}, {1, 4}},
      {"top-k 3", {.top_k = 3}, {}, {1, 3, 4}},
      {"top-k beyond V", {.top_k = 100}, {6}, {0, 1, 2, 3, 4, 5}},
      {"top-p below the largest", {.top_p = 0.3f}, {}, {4}},
      {"top-p of nothing", {.top_p = 0.0f}, {}, {4}},
      {"top-p reached by the third", {.top_p = 0.6f}, {}, {1, 3, 4}},
      {"top-p of what top-k left", {.top_k = 3, .top_p = 0.75f}, {}, {1, 4}},  // 0.40 + 0.15 of 0.70
      {"min-p", {.min_p = 0.2f}, {}, {1, 2, 3, 4, 5}},
      {"min-p 1", {.min_p = 1.0f}, {}, {4}},
      {"min-p within top-k", {.top_k = 4, .min_p = 0.374f}, {}, {1, 3, 4}},
      {"banned before top-k", {.top_k = 2}, {4}, {1, 3}},
      {"banned before min-p", {.min_p = 0.999f}, {4}, {1, 3}},
      {"temperature widens top-p",
       {.temperature = 2, .top_p = 0.5f},
       {},
       {1, 3, 4}},  // roots: .632 .387 .387 … of 2.38
  };
  for_each_backend([&](const BackendCase& backend) {
    for (const Example& example : examples) {
      SampleRow options = example.options;
      options.seed = 5;
      const Draws draws = sample_often(backend, logits, options, 400, example.banned);
      const std::set<std::int32_t> drawn(draws.tokens.begin(), draws.tokens.end());
      if (drawn != example.kept) {
        std::string list;
        for (std::int32_t token : drawn) list += std::to_string(token) + " ";
        fail_check(__FILE__, __LINE__, example.what, " drew ", list);
      }
    }
  });
}

TEST("sample: temperature 0 takes the first of the largest that is not banned, and reports temperature 1") {
  for_each_backend([](const BackendCase& backend) {
    const Values logits = {1, 3, 2, 3, 0};
    double sum = 0;
    for (double z : logits) sum += std::exp(z);
    const SampleRow greedy{.seed = 1, .temperature = 0};
    Draws draw = sample(backend, 5, logits, {greedy});
    CHECK_EQ(draw.tokens[0], 1);
    CHECK_CLOSE(draw.logprobs[0], 3 - std::log(sum), 1e-6);
    draw = sample(backend, 5, logits, {greedy}, {1, 3});
    CHECK_EQ(draw.tokens[0], 2);
    CHECK_CLOSE(draw.logprobs[0], 2 - std::log(sum), 1e-6);
  });
}

TEST("sample: a draw depends on seed, rollout and position, and on nothing around it") {
  for_each_backend([](const BackendCase& backend) {
    const std::int64_t V = 500, n = 13;
    const Values logits = accumulations(backend, n * V, 1);
    const std::vector<SampleRow> rows = some_rows(n);
    const Draws whole = sample(backend, V, logits, rows);
    for (std::int64_t i = 0; i < n; ++i) {
      const Draws alone = sample(backend, V, rows_of(logits, V, i, 1), {rows[i]});
      CHECK_EQ(alone.tokens[0], whole.tokens[i]);
      CHECK_EQ(alone.logprobs[0], whole.logprobs[i]);
    }
    const Values flat(V, 0.0);
    const SampleRow base{.seed = 1, .rollout = 2, .position = 3};
    SampleRow seed = base, rollout = base, position = base;
    seed.seed = 1ull << 40 | 1;
    rollout.rollout = 3;
    position.position = 2;
    const std::int32_t token = sample(backend, V, flat, {base}).tokens[0];
    for (const SampleRow& other : {seed, rollout, position})
      CHECK(sample(backend, V, flat, {other}).tokens[0] != token);
  });
  check_same_in_family("sample", [](const BackendCase& backend) {
    const std::int64_t V = 3001, n = 33;
    const Draws draws = sample(backend, V, accumulations(backend, n * V, 1), some_rows(n), {5, 6});
    return Results{Values(draws.tokens.begin(), draws.tokens.end()), draws.logprobs};
  });
}

TEST("sample: a row that may not stop draws as if the stop tokens were banned, its neighbours as if there were none") {
  for_each_backend([](const BackendCase& backend) {
    const std::int64_t V = 211, n = 24;
    const Values logits = accumulations(backend, n * V, 1);
    Tokens stops(100), both;
    for (std::int32_t i = 0; i < 100; ++i) stops[i] = 2 * i;
    for (const Tokens& banned : {Tokens{}, Tokens{3, 5, 8}}) {
      both = banned;
      both.insert(both.end(), stops.begin(), stops.end());
      std::vector<SampleRow> rows = some_rows(n);
      const Draws free = sample(backend, V, logits, rows, banned), bound = sample(backend, V, logits, rows, both);
      for (std::int64_t i = 0; i < n; ++i) rows[i].may_stop = i % 3 == 0;
      const Draws mixed = sample(backend, V, logits, rows, banned, stops);
      CHECK(free.tokens != bound.tokens);
      for (std::int64_t i = 0; i < n; ++i) {
        const Draws& expected = rows[i].may_stop ? free : bound;
        CHECK_EQ(mixed.tokens[i], expected.tokens[i]);
        CHECK_EQ(mixed.logprobs[i], expected.logprobs[i]);
      }
    }
  });
}

TEST("sample: rows write where their offset says, and rows that draw nothing write nothing") {
  for_each_backend([](const BackendCase& backend) {
    const std::int64_t V = 50, n = 5;
    const DType A = accumulation_of(backend);
    const Values logits = accumulations(backend, n * V, 1);
    std::vector<SampleRow> rows = some_rows(n);
    const Draws expected = sample(backend, V, logits, rows);
    for (SampleRow& row : rows) row.offset = 7;
    rows[1].draws = false;
    Workbench bench(backend);
    const Tokens before(12, -5);
    auto* tokens = static_cast<std::int32_t*>(bench.bytes(before.size() * sizeof(std::int32_t)));
    bench->upload(tokens, before.data(), before.size() * sizeof(std::int32_t));
    const View logprobs = bench.output(A, 1, 12, Values(12, 0.5));
    bench->sample(bench.input(A, n, V, logits), bench.array(rows), {}, tokens, logprobs);
    Tokens expected_tokens = before;
    Values expected_logprobs(12, 0.5);
    for (std::int64_t i = 0; i < n; ++i)
      if (rows[i].draws) {
        expected_tokens[7 + i] = expected.tokens[i];
        expected_logprobs[7 + i] = expected.logprobs[i];
      }
    CHECK(bench.read_integers(tokens, 12) == expected_tokens);
    check_equal("log-probs", bench.read(logprobs), expected_logprobs);
  });
}

TEST("sample: a row without a finite largest logit gives token -1 and log-prob NaN, and its neighbours their tokens") {
  for_each_backend([](const BackendCase& backend) {
    const double nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();
    Values logits;
    for (const Values& row :
         {Values{1, nan, 2}, {0, 0, 1}, {infinity, 0, 0}, {-infinity, -infinity, -infinity}, {0, 5, 0}})
      logits.insert(logits.end(), row.begin(), row.end());
    for (float temperature : {0.0f, 1.0f}) {
      const SampleRow row{.seed = 1, .temperature = temperature, .top_k = 1};
      const Draws draws = sample(backend, 3, logits, {row, row, row, row, row});
      CHECK(draws.tokens == Tokens({-1, 2, -1, -1, 1}));
      for (int i : {0, 2, 3}) CHECK(std::isnan(draws.logprobs[i]));
    }
    const Draws all_banned = sample(backend, 3, {0, 0, 0}, {SampleRow{}}, {0, 1, 2});
    CHECK_EQ(all_banned.tokens[0], -1);
    CHECK(std::isnan(all_banned.logprobs[0]));
  });
}

}  // namespace
}  // namespace foretoken::test
