#include <algorithm>

#include "test/operations/harness.h"

namespace foretoken::test {
namespace {

/// targets[n] are what row n predicts
using TargetLists = std::vector<std::vector<std::int32_t>>;

struct Flat {
  std::vector<std::int32_t> row_begin = {0}, tokens;
};

Flat flatten(const TargetLists& lists) {
  Flat flat;
  for (const auto& list : lists) {
    flat.tokens.insert(flat.tokens.end(), list.begin(), list.end());
    flat.row_begin.push_back(static_cast<std::int32_t>(flat.tokens.size()));
  }
  return flat;
}

/// None, one or three targets per row, among them equal ones.
TargetLists some_targets(std::int64_t rows, std::int64_t V) {
  TargetLists lists;
  for (std::int64_t n = 0; n < rows; ++n) {
    const std::int32_t token = static_cast<std::int32_t>(n * 5 % V);
    lists.push_back(n % 3 == 0   ? std::vector<std::int32_t>{token}
                    : n % 3 == 1 ? std::vector<std::int32_t>{}
                                 : std::vector<std::int32_t>{token, static_cast<std::int32_t>(V - 1), token});
  }
  return lists;
}

/// {logprobs, lse, entropy, top_entropy}
Results logprob_forward(const BackendCase& backend, std::int64_t V, const Values& logits, double inverse_temperature,
                        const TargetLists& lists, std::int32_t top_k) {
  Workbench bench(backend);
  const DType A = bench.accumulation();
  const Flat flat = flatten(lists);
  const std::int64_t n = static_cast<std::int64_t>(lists.size()), count = static_cast<std::int64_t>(flat.tokens.size());
  const View logprobs = bench.output(A, 1, count), lse = bench.output(A, 1, n), entropy = bench.output(A, 1, n);
  const View top_entropy = top_k > 0 ? bench.output(A, 1, n) : View();
  bench->logprob_forward(bench.input(A, n, V, logits), inverse_temperature,
                         {bench.array(flat.row_begin), bench.array(flat.tokens), count}, logprobs, lse, entropy,
                         top_entropy, top_k);
  Results results = {bench.read(logprobs), bench.read(lse), bench.read(entropy)};
  if (top_k > 0) results.push_back(bench.read(top_entropy));
  return results;
}

Values logprob_backward(const BackendCase& backend, std::int64_t V, const Values& logits, double inverse_temperature,
                        const TargetLists& lists, const Results& forward, const Values& dlogprobs,
                        const Values& dentropy) {
  Workbench bench(backend);
  const DType A = bench.accumulation();
  const Flat flat = flatten(lists);
  const std::int64_t n = static_cast<std::int64_t>(lists.size()), count = static_cast<std::int64_t>(flat.tokens.size());
  const View dlogits = bench.output(bench.activation(), n, V);
  bench->logprob_backward(bench.input(A, n, V, logits), inverse_temperature,
                          {bench.array(flat.row_begin), bench.array(flat.tokens), count},
                          bench.input(A, 1, n, forward[1]), bench.input(A, 1, n, forward[2]),
                          bench.input(A, 1, count, dlogprobs), bench.input(A, 1, n, dentropy), dlogits);
  return bench.read(dlogits);
}

TEST("logprob: a backend agrees with the reference") {
  for_each_backend([](const BackendCase& backend) {
    const DType A = accumulation_of(backend);
    for (std::int64_t V : {2, 16, 37, 1000, 5003})
      for (std::int64_t n : {0, 1, 7})
        for (double inverse_temperature : {1.0, 1 / 0.8, 0.5}) {
          const Values logits = accumulations(backend, n * V, 1, 4);
          const TargetLists lists = some_targets(n, V);
          const Results expected = logprob_forward(reference_case(), V, logits, inverse_temperature, lists, 16);
          const Results actual = logprob_forward(backend, V, logits, inverse_temperature, lists, 16);
          const double z = largest(logits) * inverse_temperature;
          // Tempering rounds z once, the exponential is good to a few units, V of them are added in blocks; the entropy is a
          // mean of values of size z + log V.
          const double u = unit_roundoff(A), relative = 4 * std::sqrt(V) * u, size = z + std::log(V) + 1;
          check_close("logprobs", actual[0], expected[0], A, (8 * u + relative) * size);
          check_close("lse", actual[1], expected[1], A, (8 * u + relative) * size);
          check_close("entropy", actual[2], expected[2], A, (8 * u + 4 * relative) * size);
          check_close("top_entropy", actual[3], expected[3], A, 80 * u * size);

          const Results given = {{}, rounded(expected[1], A), rounded(expected[2], A)};
          const Values dlogprobs = accumulations(backend, static_cast<std::int64_t>(expected[0].size()), 2),
                       dentropy = accumulations(backend, n, 3);
          const Values gradient =
              logprob_backward(reference_case(), V, logits, inverse_temperature, lists, given, dlogprobs, dentropy);
          check_close("dlogits",
                      logprob_backward(backend, V, logits, inverse_temperature, lists, given, dlogprobs, dentropy),
                      gradient, backend.dtype, 64 * u * size * std::max(1.0, largest(gradient)));
        }
  });
}

TEST("logprob: known distributions have their known log-probs and entropies") {
  for_each_backend([](const BackendCase& backend) {
    const double tolerance = 1e-6;
    const Results uniform = logprob_forward(backend, 8, Values(8, 3.0), 1, {{5}}, 4);
    CHECK_CLOSE(uniform[0][0], -std::log(8), tolerance);
    CHECK_CLOSE(uniform[2][0], std::log(8), tolerance);
    CHECK_CLOSE(uniform[3][0], std::log(4), tolerance);
    const Results quarter = logprob_forward(backend, 2, {0, std::log(9)}, 0.5, {{0, 1}}, 16);  // tempered: 1 : 3
    CHECK_CLOSE(quarter[0][0], std::log(0.25), tolerance);
    CHECK_CLOSE(quarter[0][1], std::log(0.75), tolerance);
    CHECK_CLOSE(quarter[2][0], -0.25 * std::log(0.25) - 0.75 * std::log(0.75), tolerance);
    CHECK_CLOSE(quarter[3][0], quarter[2][0], tolerance);
    const Results sharp = logprob_forward(backend, 3, {1e4, -1e4, 0}, 1, {{0, 1}}, 0);
    CHECK_EQ(sharp[0][0], 0.0);
    CHECK_CLOSE(sharp[0][1], -2e4, 0.01);
    CHECK_CLOSE(sharp[2][0], 0, tolerance);
  });
}

TEST("logprob: a chunk of a longer list of targets reads and writes its own part of it, exactly") {
  for_each_backend([](const BackendCase& backend) {
    const std::int64_t V = 40, n = 9, begin = 4, count = 3;
    const DType A = accumulation_of(backend);
    const Values logits = accumulations(backend, n * V, 1);
    const TargetLists lists = some_targets(n, V);
    const Flat flat = flatten(lists);
    const std::int64_t targets_count = static_cast<std::int64_t>(flat.tokens.size());
    const Results whole = logprob_forward(backend, V, logits, 1.25, lists, 0);
    const Values dlogprobs = accumulations(backend, targets_count, 2), dentropy = accumulations(backend, n, 3);
    const Values gradient = logprob_backward(backend, V, logits, 1.25, lists, whole, dlogprobs, dentropy);

    Workbench bench(backend);
    const Targets targets{bench.array(flat.row_begin) + begin, bench.array(flat.tokens), targets_count};
    const View chunk = bench.input(A, count, V, rows_of(logits, V, begin, count));
    const Values untouched = accumulations(backend, targets_count, 4);
    const View logprobs = bench.output(A, 1, targets_count, untouched);
    const View lse = bench.output(A, 1, count), entropy = bench.output(A, 1, count),
               dlogits = bench.output(bench.activation(), count, V);
    bench->logprob_forward(chunk, 1.25, targets, logprobs, lse, entropy, View(), 0);
    bench->logprob_backward(chunk, 1.25, targets, lse, entropy, bench.input(A, 1, targets_count, dlogprobs),
                            bench.input(A, 1, count, rows_of(dentropy, 1, begin, count)), dlogits);
    Values expected = untouched;
    for (std::int32_t t = flat.row_begin[begin]; t < flat.row_begin[begin + count]; ++t) expected[t] = whole[0][t];
    check_equal("logprobs", bench.read(logprobs), expected);
    check_equal("lse", bench.read(lse), rows_of(whole[1], 1, begin, count));
    check_equal("dlogits", bench.read(dlogits), rows_of(gradient, V, begin, count));
  });
}

TEST("logprob: the reference's gradient is that of finite differences") {
  const std::int64_t V = 7, n = 3;
  const double inverse_temperature = 1 / 0.7;
  const Values logits = normal(n * V, 1);
  const TargetLists lists = some_targets(n, V);
  const Results forward = logprob_forward(reference_case(), V, logits, inverse_temperature, lists, 0);
  const Values dlogprobs = normal(static_cast<std::int64_t>(forward[0].size()), 2), dentropy = normal(n, 3);
  check_gradient(
      "dlogits",
      [&](const Values& logits) {
        const Results r = logprob_forward(reference_case(), V, logits, inverse_temperature, lists, 0);
        return inner({r[0], r[2]}, {dlogprobs, dentropy});
      },
      logits, logprob_backward(reference_case(), V, logits, inverse_temperature, lists, forward, dlogprobs, dentropy));
}

TEST("logprob: a row's bits depend on neither batch nor threads") {
  for_each_backend([](const BackendCase& backend) {
    const std::int64_t V = 1003, n = 9;
    const Values logits = accumulations(backend, n * V, 1, 3);
    TargetLists lists;
    for (std::int64_t i = 0; i < n; ++i) lists.push_back({static_cast<std::int32_t>(i * 100)});
    const auto piece = [&](std::int64_t begin, std::int64_t count) {
      return TargetLists(lists.begin() + begin, lists.begin() + begin + count);
    };
    const Results whole = logprob_forward(backend, V, logits, 1.25, lists, 16);
    for (int output = 0; output < 4; ++output)
      check_rows_independent("statistics", n, 1, [&](std::int64_t begin, std::int64_t count) {
        return logprob_forward(backend, V, rows_of(logits, V, begin, count), 1.25, piece(begin, count), 16)[output];
      });
    const Values dlogprobs = accumulations(backend, n, 2), dentropy = accumulations(backend, n, 3);
    check_rows_independent("dlogits", n, V, [&](std::int64_t begin, std::int64_t count) {
      const Results given = {{}, rows_of(whole[1], 1, begin, count), rows_of(whole[2], 1, begin, count)};
      return logprob_backward(backend, V, rows_of(logits, V, begin, count), 1.25, piece(begin, count), given,
                              rows_of(dlogprobs, 1, begin, count), rows_of(dentropy, 1, begin, count));
    });
  });
  check_same_in_family("logprob", [](const BackendCase& backend) {
    const std::int64_t V = 3001, n = 21;
    const Values logits = accumulations(backend, n * V, 1, 3);
    const TargetLists lists = some_targets(n, V);
    Results all = logprob_forward(backend, V, logits, 1.25, lists, 16);
    all.push_back(logprob_backward(backend, V, logits, 1.25, lists, all,
                                   accumulations(backend, static_cast<std::int64_t>(all[0].size()), 2),
                                   accumulations(backend, n, 3)));
    return all;
  });
}

}  // namespace
}  // namespace foretoken::test
