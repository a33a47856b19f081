#include "test/operations/harness.h"

namespace foretoken::test {
namespace {

using Indices = std::vector<std::int32_t>;

Values embed_forward(const BackendCase& backend, std::int64_t C, const Values& table, const Indices& tokens) {
  Workbench bench(backend);
  const std::int64_t V = static_cast<std::int64_t>(table.size()) / C, N = static_cast<std::int64_t>(tokens.size());
  const View x = bench.output(bench.accumulation(), N, C);
  bench->embed_forward(bench.array(tokens), bench.input(bench.accumulation(), V, C, table), x);
  return bench.read(x);
}

Values embed_backward(const BackendCase& backend, std::int64_t C, const Values& dx, const Indices& tokens,
                      const Values& start) {
  Workbench bench(backend);
  const std::int64_t V = static_cast<std::int64_t>(start.size()) / C, N = static_cast<std::int64_t>(tokens.size());
  const View dtable = bench.output(bench.accumulation(), V, C, start);
  bench->embed_backward(bench.array(tokens), bench.input(bench.accumulation(), N, C, dx), dtable);
  return bench.read(dtable);
}

Indices some_tokens(std::int64_t count, std::int64_t V) {
  Indices tokens;
  for (std::int64_t i = 0; i < count; ++i) tokens.push_back(static_cast<std::int32_t>((i * i + 3 * i) % V));
  return tokens;
}

TEST("embedding: rows of the table, rounded to the activation dtype, exactly") {
  for_each_backend([](const BackendCase& backend) {
    for (std::int64_t C : {1, 8, 20, 80, 129}) {
      const std::int64_t V = 23;
      const Values table = accumulations(backend, V * C, 1);
      for (std::int64_t N : {0, 1, 40}) {
        const Indices tokens = some_tokens(N, V);
        Values expected;
        for (std::int32_t token : tokens)
          for (double value : rounded(rows_of(table, C, token, 1), backend.dtype)) expected.push_back(value);
        check_equal("x", embed_forward(backend, C, table, tokens), expected);
      }
    }
  });
}

TEST("embedding: the table may be a bfloat16 master") {
  for_each_backend([](const BackendCase& backend) {
    for (DType dtype : {accumulation_of(backend), DType::BFloat16}) {
      const std::int64_t C = 33;
      const Values table = rounded(normal(4 * C, 1), DType::BFloat16);
      Workbench bench(backend);
      const View x = bench.output(bench.accumulation(), 2, C);
      bench->embed_forward(bench.array<std::int32_t>({3, 1}), bench.input(dtype, 4, C, table), x);
      Values expected = rows_of(table, C, 3, 1);
      for (double value : rows_of(table, C, 1, 1)) expected.push_back(value);
      check_equal("x", bench.read(x), expected);
    }
  });
}

TEST("embedding: the gradient adds equal tokens in packed order, exactly") {
  for_each_backend([](const BackendCase& backend) {
    for (std::int64_t C : {1, 20, 80})
      for (std::int64_t N : {0, 1, 300}) {
        const std::int64_t V = 23;
        const DType A = accumulation_of(backend);
        const Indices tokens = some_tokens(N, V);
        const Values dx = accumulations(backend, N * C, 2), start = accumulations(backend, V * C, 3);
        Values expected = start;
        for (std::int64_t n = 0; n < N; ++n)
          for (std::int64_t c = 0; c < C; ++c) {
            double& sum = expected[tokens[n] * C + c];
            sum =
                A == DType::Float64 ? sum + dx[n * C + c] : static_cast<float>(sum) + static_cast<float>(dx[n * C + c]);
          }
        check_equal("dtable", embed_backward(backend, C, dx, tokens, start), expected);
      }
  });
}

TEST("rows: gathering and scattering move exactly the rows named") {
  for_each_backend([](const BackendCase& backend) {
    for (std::int64_t C : {1, 20, 96})
      for (const Indices& index : {Indices{}, Indices{4}, Indices{6, 0, 3, 5}}) {
        const std::int64_t N = 7, M = static_cast<std::int64_t>(index.size());
        const Values x = accumulations(backend, N * C, 1), dy = accumulations(backend, M * C, 2);
        Workbench bench(backend);
        const DType A = bench.accumulation();
        const View y = bench.output(A, M, C), dx = bench.output(A, N, C, x);
        bench->gather_rows(bench.input(A, N, C, x), bench.array(index), y);
        bench->scatter_add_rows(bench.input(A, M, C, dy), bench.array(index), dx);
        Values gathered, scattered = x;
        for (std::int64_t m = 0; m < M; ++m)
          for (std::int64_t c = 0; c < C; ++c) {
            double& sum = scattered[index[m] * C + c];
            gathered.push_back(sum);
            sum =
                A == DType::Float64 ? sum + dy[m * C + c] : static_cast<float>(sum) + static_cast<float>(dy[m * C + c]);
          }
        check_equal("y", bench.read(y), gathered);

        const DType T = bench.activation();
        const Values rounded_x = rounded(x, T);
        const View rounded_y = bench.output(T, M, C);
        bench->gather_rows(bench.input(T, N, C, rounded_x), bench.array(index), rounded_y);
        Values of_rounded;
        for (std::int32_t m : index)
          for (double value : rows_of(rounded_x, C, m, 1)) of_rounded.push_back(value);
        check_equal("y in T", bench.read(rounded_y), of_rounded);
        check_equal("dx", bench.read(dx), scattered);
      }
  });
}

TEST("rows: a token is one that was drawn, where a place is named, or the one that is given; a drawn stop token ends the run") {
  for_each_backend([](const BackendCase& backend) {
    Workbench bench(backend);
    const Indices given{10, 11, 12, 13}, drawn{7, 8, 9}, from{-1, 2, 0, -1};
    auto* tokens = static_cast<std::int32_t*>(bench.bytes(from.size() * sizeof(std::int32_t)));
    // 13 is given, not drawn: that rollout goes on.
    for (const auto& [stops, counts] : {std::pair{Indices{}, Indices{1, 1, 1, 1}}, {Indices{13, 7}, Indices{1, 1, 0, 1}},
                                        {Indices{9, 8}, Indices{1, 0, 1, 1}}}) {
      auto* runs = static_cast<Run*>(bench.bytes(4 * sizeof(Run)));
      Run before[4];
      for (std::int32_t i = 0; i < 4; ++i) before[i] = {i, 1, 20 + i, 3 - i};
      bench->upload(runs, before, sizeof before);
      const TokenRules rules{nullptr, 0, bench.array(stops), static_cast<std::int64_t>(stops.size())};
      bench->select_tokens(bench.array(given), bench.array(drawn), bench.array(from), 4, rules, tokens, runs);
      CHECK(bench.read_integers(tokens, 4) == (Indices{10, 9, 7, 13}));
      Run after[4];
      bench->download(after, runs, sizeof after);
      for (std::int32_t i = 0; i < 4; ++i) {
        CHECK_EQ(after[i].count, counts[i]);
        CHECK(after[i].row == i && after[i].position == 20 + i && after[i].table == 3 - i);
      }
    }
  });
}

}  // namespace
}  // namespace foretoken::test
