#include <cstring>

#include "test/operations/forest_layout.h"
#include "test/operations/harness.h"

namespace foretoken::test {
namespace {

constexpr double kEpsilon = 1e-6;

struct Case {
  AttentionShape shape;
  bool norm;
};

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (bool norm : {false, true})
    for (const auto& [H, K, D] : std::initializer_list<std::tuple<int, int, int>>{
             {1, 1, 8}, {2, 2, 20}, {4, 2, 64}, {3, 1, 80}, {2, 1, 96}, {6, 2, 128}})
      cases.push_back({AttentionShape{H, K, D, 1, 0}, norm});
  return cases;
}

std::int64_t width(const AttentionShape& s) { return static_cast<std::int64_t>(s.heads + 2 * s.kv_heads) * s.head_dim; }

/// cos and sin of positions 0 … count − 1, as a decoder would make them
Values rope_table(std::int64_t count, int D) {
  Values table;
  for (std::int64_t p = 0; p < count; ++p) {
    for (int i = 0; i < D / 2; ++i) table.push_back(std::cos(p * std::pow(10000.0, -2.0 * i / D)));
    for (int i = 0; i < D / 2; ++i) table.push_back(std::sin(p * std::pow(10000.0, -2.0 * i / D)));
  }
  return table;
}

constexpr std::int64_t kPositions = 40;

std::vector<std::int32_t> some_positions(std::int64_t begin, std::int64_t count) {
  std::vector<std::int32_t> positions;
  for (std::int64_t n = begin; n < begin + count; ++n)
    positions.push_back(static_cast<std::int32_t>(n * 7 % kPositions));
  return positions;
}

struct Norms {
  Values q, k;
};

Norms norms(const BackendCase& backend, const Case& c) {
  if (!c.norm) return {};
  return {accumulations(backend, c.shape.head_dim, 11), accumulations(backend, c.shape.head_dim, 12)};
}

View norm_view(Workbench& bench, const Values& norm) {
  return norm.empty() ? View() : bench.input(bench.accumulation(), 1, static_cast<std::int64_t>(norm.size()), norm);
}

/// {q, k}; what goes to pages is a test of its own.
Results rope_forward(const BackendCase& backend, const Case& c, const Values& qkv, const Norms& norms,
                     const std::vector<std::int32_t>& positions) {
  Workbench bench(backend);
  const AttentionShape& s = c.shape;
  const std::int64_t N = static_cast<std::int64_t>(positions.size());
  const View q = bench.output(bench.activation(), N, s.heads * s.head_dim);
  const View k = bench.output(bench.activation(), N, s.kv_heads * s.head_dim);
  bench->rope_forward(bench.input(bench.activation(), N, width(s), qkv), norm_view(bench, norms.q),
                      norm_view(bench, norms.k), kEpsilon, bench.array(positions),
                      bench.input(bench.accumulation(), kPositions, s.head_dim, rope_table(kPositions, s.head_dim)), s,
                      {bench.array(std::vector<std::int32_t>(positions.size() + 1, 0)), nullptr}, nullptr, q, k);
  return {bench.read(q), bench.read(k)};
}

/// {dqkv, dq_norm, dk_norm}; the last two added to `start` and absent without norms
Results rope_backward(const BackendCase& backend, const Case& c, const Results& upstream, const Values& qkv,
                      const Norms& norms, const std::vector<std::int32_t>& positions, const Norms& start) {
  Workbench bench(backend);
  const AttentionShape& s = c.shape;
  const DType A = bench.accumulation();
  const std::int64_t N = static_cast<std::int64_t>(positions.size());
  const View dqkv = bench.output(bench.activation(), N, width(s));
  const View dq_norm = c.norm ? bench.output(A, 1, s.head_dim, start.q) : View();
  const View dk_norm = c.norm ? bench.output(A, 1, s.head_dim, start.k) : View();
  bench->rope_backward(
      bench.input(A, N, s.heads * s.head_dim, upstream[0]), bench.input(A, N, s.kv_heads * s.head_dim, upstream[1]),
      bench.input(A, N, s.kv_heads * s.head_dim, upstream[2]), bench.input(bench.activation(), N, width(s), qkv),
      norm_view(bench, norms.q), norm_view(bench, norms.k), kEpsilon, bench.array(positions),
      bench.input(A, kPositions, s.head_dim, rope_table(kPositions, s.head_dim)), s, dqkv, dq_norm, dk_norm);
  Results results = {bench.read(dqkv)};
  if (c.norm) {
    results.push_back(bench.read(dq_norm));
    results.push_back(bench.read(dk_norm));
  }
  return results;
}

Results upstream_of(const BackendCase& backend, const Case& c, std::int64_t N) {
  const AttentionShape& s = c.shape;
  return {accumulations(backend, N * s.heads * s.head_dim, 21), accumulations(backend, N * s.kv_heads * s.head_dim, 22),
          accumulations(backend, N * s.kv_heads * s.head_dim, 23)};
}

TEST("rope: a backend agrees with the reference") {
  for_each_backend([](const BackendCase& backend) {
    const DType A = accumulation_of(backend);
    for (const Case& c : all_cases())
      for (std::int64_t N : {0, 1, 9}) {
        const int D = c.shape.head_dim;
        const auto positions = some_positions(0, N);
        const Values qkv = activations(backend, N * width(c.shape), 1);
        const Norms weights = norms(backend, c);
        // Norm: sums of D terms of one sign; table: rounded once; rotation: three roundings.
        const double relative = (D + 8) * unit_roundoff(A);
        const Results expected = rope_forward(reference_case(), c, qkv, weights, positions);
        const Results actual = rope_forward(backend, c, qkv, weights, positions);
        check_close("q", actual[0], expected[0], backend.dtype, relative * largest(expected[0]));
        check_close("k", actual[1], expected[1], backend.dtype, relative * largest(expected[1]));

        const Results upstream = upstream_of(backend, c, N);
        const Norms start = {accumulations(backend, D, 31), accumulations(backend, D, 32)};
        const Results gradients = rope_backward(reference_case(), c, upstream, qkv, weights, positions, start);
        const Results got = rope_backward(backend, c, upstream, qkv, weights, positions, start);
        check_close("dqkv", got[0], gradients[0], backend.dtype, 2 * relative * largest(gradients[0]));
        for (std::size_t i = 1; i < gradients.size(); ++i)
          check_close("norm gradient", got[i], gradients[i], A,
                      (D + N * c.shape.heads + 8) * unit_roundoff(A) * (1 + N * c.shape.heads) *
                          largest(upstream[i - 1]) * largest(qkv));
      }
  });
}

TEST("rope: rotated keys and values go to the slots of their rows and nowhere else, whether k is wanted or not") {
  for_each_backend([](const BackendCase& backend) {
    for (const Case& c : all_cases()) {
      const AttentionShape& s = c.shape;
      const std::int64_t N = 5, pages = 4, cols = s.kv_heads * s.head_dim;
      const auto positions = some_positions(3, N);
      const Values qkv = activations(backend, N * width(s), 1);
      const Norms weights = norms(backend, c);
      Workbench bench(backend);
      const std::int64_t P = bench->page_positions(), last = pages * P - 1;
      std::vector<SlotWrite> writes;  // row 2 goes to no page, row 3 to three
      for (const auto& [row, slot] : std::initializer_list<std::pair<int, std::int64_t>>{{0, P}, {3, last}, {1, P + 1}, {4, 3}, {3, 0}, {3, 2 * P}})
        writes.push_back({row, static_cast<std::int32_t>(slot)});
      const RowSlots slots = slots_by_row(writes, N);
      const auto contents = [&](const auto& write) {
        std::vector<std::byte> bytes(static_cast<std::size_t>(pages) * bench->page_bytes(s));
        void* data = bench.bytes(bytes.size());
        write(data);
        bench->download(bytes.data(), data, bytes.size());
        return bytes;
      };
      const DType T = bench.activation();
      const auto rope = [&](View k) {
        return contents([&](void* data) {
          bench->rope_forward(bench.input(T, N, width(s), qkv), norm_view(bench, weights.q), norm_view(bench, weights.k), kEpsilon,
                              bench.array(positions), bench.input(bench.accumulation(), kPositions, s.head_dim, rope_table(kPositions, s.head_dim)),
                              s, {bench.array(slots.row_begin), bench.array(slots.slots)}, data, bench.output(T, N, s.heads * s.head_dim), k);
        });
      };
      const View k = bench.output(T, N, cols);
      const std::vector<std::byte> wanted = rope(k), unwanted = rope({});
      Values v;
      for (std::int64_t n = 0; n < N; ++n) {
        const Values row = rows_of(qkv, width(s), n, 1);
        v.insert(v.end(), row.end() - cols, row.end());
      }
      const Values keys = bench.read(k);
      check_equal("k", keys, rope_forward(backend, c, qkv, weights, positions)[1]);
      const std::vector<std::byte> plain = contents([&](void* data) { fill_pages(bench, s, keys, v, writes, data); });
      CHECK(std::memcmp(wanted.data(), plain.data(), plain.size()) == 0);
      CHECK(std::memcmp(unwanted.data(), plain.data(), plain.size()) == 0);
      bench.read(k);  // checks the guards
    }
  });
}

TEST("rope: the reference's gradients are those of finite differences") {
  for (bool norm : {false, true}) {
    const Case c{AttentionShape{2, 1, 6, 1, 0}, norm};
    const std::int64_t N = 2;
    const auto positions = some_positions(1, N);
    const BackendCase& reference = reference_case();
    const Values qkv = normal(N * width(c.shape), 1);
    const Norms weights = norms(reference, c);
    const Results upstream = upstream_of(reference, c, N);
    const Results gradients = rope_backward(reference, c, upstream, qkv, weights, positions, {Values(6), Values(6)});
    const auto loss = [&](const Values& qkv, const Norms& weights) {
      Results out = rope_forward(reference, c, qkv, weights, positions);
      Values v;  // v is passed through
      for (std::int64_t n = 0; n < N; ++n)
        for (std::int64_t d = 0; d < 6; ++d) v.push_back(qkv[n * width(c.shape) + 3 * 6 + d]);
      out.push_back(v);
      return inner(out, upstream);
    };
    check_gradient("dqkv", [&](const Values& x) { return loss(x, weights); }, qkv, gradients[0]);
    if (!norm) continue;
    check_gradient("dq_norm", [&](const Values& w) { return loss(qkv, {w, weights.k}); }, weights.q, gradients[1]);
    check_gradient("dk_norm", [&](const Values& w) { return loss(qkv, {weights.q, w}); }, weights.k, gradients[2]);
  }
}

TEST("rope: scores of rotated rows depend on the distance of their positions only") {
  const Case c{AttentionShape{1, 1, 16, 1, 0}, false};
  const Values qkv = normal(width(c.shape), 1);
  const auto score = [&](std::int32_t query, std::int32_t key) {
    return inner(rope_forward(reference_case(), c, qkv, {}, {query})[0],
                 rope_forward(reference_case(), c, qkv, {}, {key})[1]);
  };
  CHECK_CLOSE(score(7, 2), score(35, 30), 1e-12);
  CHECK(std::fabs(score(7, 2) - score(7, 3)) > 1e-6);
}

TEST("rope: a row's bits do not depend on the batch, gradients' bits not on threads") {
  for_each_backend([](const BackendCase& backend) {
    for (const Case& c : all_cases()) {
      const std::int64_t N = 10, W = width(c.shape);
      const Values qkv = activations(backend, N * W, 1);
      const Norms weights = norms(backend, c);
      for (int output : {0, 1})
        check_rows_independent(output == 0 ? "q" : "k", N,
                               (output == 0 ? c.shape.heads : c.shape.kv_heads) * c.shape.head_dim,
                               [&](std::int64_t begin, std::int64_t count) {
                                 return rope_forward(backend, c, rows_of(qkv, W, begin, count), weights,
                                                     some_positions(begin, count))[output];
                               });
    }
  });
  check_same_in_family("rope", [](const BackendCase& backend) {
    const Case c{AttentionShape{4, 2, 20, 1, 0}, true};
    const std::int64_t N = 211;
    const Values qkv = activations(backend, N * width(c.shape), 1);
    const Norms weights = norms(backend, c);
    Results all = rope_forward(backend, c, qkv, weights, some_positions(0, N));
    for (Values& gradient : rope_backward(backend, c, upstream_of(backend, c, N), qkv, weights, some_positions(0, N),
                                          {accumulations(backend, 20, 31), accumulations(backend, 20, 32)}))
      all.push_back(gradient);
    return all;
  });
}

}  // namespace
}  // namespace foretoken::test
