#include <algorithm>
#include <map>

#include "test/operations/forest_layout.h"
#include "test/operations/harness.h"

namespace foretoken::test {
namespace {

AttentionShape make_shape(int H, int K, int D, int window = 0) {
  return {H, K, D, static_cast<float>(1 / std::sqrt(D)), window};
}

const SmallForest kForests[] = {
    {{-1}, {1}},
    {{-1}, {270}},                                  // longer than the pieces in which a backend takes a run
    {{-1, -1}, {5, 9}},
    {{-1, 0, 0, 0, 3, -1}, {6, 3, 1, 7, 4, 10}},    // branches inside a page, a grandchild, a second tree
    {{-1, 0, 1, 1, 0, 4}, {70, 33, 5, 1, 64, 40}},  // longer than the pages and tiles of any backend here
};

const AttentionShape kShapes[] = {make_shape(1, 1, 8),     make_shape(4, 2, 20),     make_shape(3, 3, 64),
                                  make_shape(6, 2, 80, 3), make_shape(2, 1, 96, 33), make_shape(8, 2, 128, 5),
                                  make_shape(40, 2, 8),    make_shape(1, 1, 256), make_shape(26, 1, 8)};

/// Shapes whose bits are compared; more where tiles of many rows share what others compute row by row.
std::vector<AttentionShape> shapes_of_bits(const BackendCase& backend) {
  std::vector<AttentionShape> shapes = {make_shape(4, 2, 20), make_shape(2, 1, 64, 33)};
  if (backend.family == "cpu amx bfloat16")
    for (const AttentionShape& shape : {make_shape(6, 2, 64), make_shape(8, 1, 80, 18), make_shape(3, 3, 128, 40)})
      shapes.push_back(shape);
  return shapes;
}

std::int64_t rows_in(const SmallForest& forest) {
  std::int64_t rows = 0;
  for (int length : forest.lengths) rows += length;
  return rows;
}

/// q (N, H·D), k and v (N, K·D)
struct Inputs {
  Values q, k, v;
};

Inputs some_inputs(const AttentionShape& shape, std::int64_t N, DType dtype) {
  return {rounded(normal(N * shape.heads * shape.head_dim, 1), dtype),
          rounded(normal(N * shape.kv_heads * shape.head_dim, 2), dtype),
          rounded(normal(N * shape.kv_heads * shape.head_dim, 3), dtype)};
}

enum class Calls { Together, RowByRow };

/// {out, lse}. RowByRow is decoding: every token enters the cache just before its own query, in a call of its own.
Results attention_forward(const BackendCase& backend, const AttentionShape& shape, const SmallForest& forest,
                          const Inputs& inputs, const LayoutOptions& options = {}, Calls calls = Calls::Together) {
  Workbench bench(backend);
  const std::int64_t q_cols = static_cast<std::int64_t>(shape.heads) * shape.head_dim;
  const std::int64_t kv_cols = static_cast<std::int64_t>(shape.kv_heads) * shape.head_dim;
  const Layout layout = lay_out(forest, bench->page_positions(), options);
  const std::int64_t N = layout.rows;
  const View q = bench.input(bench.activation(), N, q_cols, inputs.q);
  const View out = bench.output(bench.activation(), N, q_cols),
             lse = bench.output(bench.accumulation(), N, shape.heads);
  void* pages = bench.bytes(static_cast<std::size_t>(layout.pages) * bench->page_bytes(shape));
  const std::int32_t* tables = bench.array(layout.tables);

  if (calls == Calls::Together) {
    fill_pages(bench, shape, inputs.k, inputs.v, layout.writes, pages);
    bench->attention_forward(q, pages,
                             {bench.array(layout.runs), static_cast<std::int64_t>(layout.runs.size()),
                              layout.longest_run, tables, layout.table_stride, layout.longest_path},
                             shape, out, lse);
    return {bench.read(out), bench.read(lse)};
  }
  for (const Run& run : layout.runs)
    for (std::int32_t i = 0; i < run.count; ++i) {
      const std::int64_t row = run.row + i;
      std::vector<SlotWrite> writes;
      for (const SlotWrite& write : layout.writes)
        if (write.row == row) writes.push_back({0, write.slot});
      fill_pages(bench, shape, rows_of(inputs.k, kv_cols, row, 1), rows_of(inputs.v, kv_cols, row, 1), writes, pages);
      const std::vector<Run> one = {{0, 1, run.position + i, run.table}};
      bench->attention_forward(q.slice_rows(row, 1), pages,
                               {bench.array(one), 1, 1, tables, layout.table_stride, run.position + i + 1}, shape,
                               out.slice_rows(row, 1), lse.slice_rows(row, 1));
    }
  return {bench.read(out), bench.read(lse)};
}

/// {dq, dk, dv} of Σ out · dout
Results attention_backward(const BackendCase& backend, const AttentionShape& shape, const SmallForest& forest,
                           const Inputs& inputs, const Results& forward, const Values& dout) {
  Workbench bench(backend);
  const DType A = bench.accumulation(), T = bench.activation();
  const std::int64_t q_cols = static_cast<std::int64_t>(shape.heads) * shape.head_dim;
  const std::int64_t kv_cols = static_cast<std::int64_t>(shape.kv_heads) * shape.head_dim;
  const Layout layout = lay_out(forest, bench->page_positions());
  const std::int64_t N = layout.rows;
  const View dq = bench.output(A, N, q_cols), dk = bench.output(A, N, kv_cols), dv = bench.output(A, N, kv_cols);
  const PackedPaths paths{bench.array(layout.runs),
                          static_cast<std::int64_t>(layout.runs.size()),
                          bench.array(layout.trees),
                          static_cast<std::int64_t>(layout.trees.size()) - 1,
                          bench.array(layout.path_begin),
                          bench.array(layout.path_rows),
                          layout.longest_path};
  bench->attention_backward(bench.input(T, N, q_cols, inputs.q), bench.input(T, N, kv_cols, inputs.k),
                            bench.input(T, N, kv_cols, inputs.v), bench.input(T, N, q_cols, forward[0]),
                            bench.input(T, N, q_cols, dout), bench.input(A, N, shape.heads, forward[1]), paths, shape,
                            dq, dk, dv);
  return {bench.read(dq), bench.read(dk), bench.read(dv)};
}

/// The values, each off by at most `relative` of itself.
Values disturbed(const Values& values, std::uint32_t seed, double relative) {
  Values result = values;
  const Values noise = normal(static_cast<std::int64_t>(values.size()), seed);
  for (std::size_t i = 0; i < values.size(); ++i) result[i] *= 1 + relative * std::clamp(noise[i], -1.0, 1.0);
  return result;
}

/// FlashAttention's rule in general form: a backend may be off by four times what errors of 8 u in its inputs would do
/// to the exact result, u the unit roundoff of what it adds up in. Probabilities and gradients that are multiplied again
/// may be rounded to bfloat16 before, as PyTorch does: errors of 1 u of that in what they are multiplied by.
Values allowances(const Results& exact, const Results& of_disturbed) {
  Values bounds;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    Values difference = exact[i];
    for (std::size_t j = 0; j < difference.size(); ++j) difference[j] -= of_disturbed[i][j];
    bounds.push_back(4 * largest(difference) + 1e-15);
  }
  return bounds;
}

struct Expected {
  Inputs inputs;
  Results forward, backward;
  Values dout;
  Values forward_bounds, backward_bounds;
};

Expected expected_of(const BackendCase& backend, const AttentionShape& shape, const SmallForest& forest) {
  const BackendCase& reference = reference_case();
  const std::int64_t N = rows_in(forest);
  const DType A = accumulation_of(backend);
  const double noise = 8 * unit_roundoff(A), factor_noise = std::max(noise, unit_roundoff(backend.dtype));
  Expected e;
  e.inputs = some_inputs(shape, N, backend.dtype);
  e.dout = rounded(normal(N * shape.heads * shape.head_dim, 4), backend.dtype);
  const Inputs moved = {disturbed(e.inputs.q, 5, noise), disturbed(e.inputs.k, 6, noise),
                        disturbed(e.inputs.v, 7, factor_noise)};
  const Inputs moved_factors = {disturbed(e.inputs.q, 5, factor_noise), disturbed(e.inputs.k, 6, factor_noise), moved.v};
  e.forward = attention_forward(reference, shape, forest, e.inputs);
  const Results moved_forward = attention_forward(reference, shape, forest, moved);
  e.forward_bounds = allowances(e.forward, moved_forward);
  const Results given = {rounded(e.forward[0], backend.dtype), rounded(e.forward[1], A)};
  e.backward = attention_backward(reference, shape, forest, e.inputs, given, e.dout);
  e.backward_bounds = allowances(e.backward, attention_backward(reference, shape, forest, moved_factors, given,
                                                                disturbed(e.dout, 8, factor_noise)));
  return e;
}

TEST("attention: a backend agrees with the reference, forward and backward") {
  for (const AttentionShape& shape : kShapes)
    for (const SmallForest& forest : kForests) {
      std::map<DType, Expected> known;
      for_each_backend([&](const BackendCase& backend) {
        if (!known.contains(backend.dtype)) known[backend.dtype] = expected_of(backend, shape, forest);
        const Expected& e = known[backend.dtype];
        const DType A = accumulation_of(backend);
        const Results forward = attention_forward(backend, shape, forest, e.inputs);
        check_close("out", forward[0], e.forward[0], backend.dtype, e.forward_bounds[0]);
        check_close("lse", forward[1], e.forward[1], A, e.forward_bounds[1]);
        const Results given = {rounded(e.forward[0], backend.dtype), rounded(e.forward[1], A)};
        const Results backward = attention_backward(backend, shape, forest, e.inputs, given, e.dout);
        check_close("dq", backward[0], e.backward[0], A, e.backward_bounds[0]);
        check_close("dk", backward[1], e.backward[1], A, e.backward_bounds[1]);
        check_close("dv", backward[2], e.backward[2], A, e.backward_bounds[2]);
      });
    }
}

TEST("attention: large scores neither overflow nor lose the largest") {
  for_each_backend([](const BackendCase& backend) {
    const AttentionShape shape = make_shape(2, 1, 16);
    const SmallForest forest = {{-1}, {40}};
    Inputs inputs = some_inputs(shape, 40, backend.dtype);
    for (double& value : inputs.q) value *= 1024;
    const Results expected = attention_forward(reference_case(), shape, forest, inputs);
    const Results actual = attention_forward(backend, shape, forest, inputs);
    // Scores of order 10⁴ carry absolute errors of order 10⁴ · u, which is the relative error of the probabilities.
    check_close("out", actual[0], expected[0], backend.dtype,
                4e4 * unit_roundoff(accumulation_of(backend)) * largest(inputs.v));
  });
}

TEST("attention: a window of w shows a token the last w positions, itself among them, and no other") {
  for_each_backend([](const BackendCase& backend) {
    const SmallForest forest = {{-1}, {50}};
    const int window = 7;
    const AttentionShape shape = make_shape(1, 1, 8, window);
    const Inputs inputs = some_inputs(shape, 50, backend.dtype);
    const Values out = attention_forward(backend, shape, forest, inputs)[0];
    for (int changed : {0, 13, 40}) {
      Inputs moved = inputs;
      for (int d = 0; d < 8; ++d) moved.v[changed * 8 + d] += 16;
      const Values other = attention_forward(backend, shape, forest, moved)[0];
      for (int n = 0; n < 50; ++n)
        CHECK_EQ(rows_of(other, 8, n, 1) == rows_of(out, 8, n, 1), n < changed || n >= changed + window);
    }
  });
}

TEST("attention: lse may be left out") {
  for_each_backend([](const BackendCase& backend) {
    const AttentionShape shape = make_shape(2, 1, 16);
    const Inputs inputs = some_inputs(shape, 3, backend.dtype);
    Workbench bench(backend);
    const Layout layout = lay_out({{-1}, {3}}, bench->page_positions());
    const DType T = bench.activation();
    void* pages = bench.bytes(static_cast<std::size_t>(layout.pages) * bench->page_bytes(shape));
    fill_pages(bench, shape, inputs.k, inputs.v, layout.writes, pages);
    const View out = bench.output(T, 3, 32);
    bench->attention_forward(bench.input(T, 3, 32, inputs.q), pages,
                             {bench.array(layout.runs), 1, 3, bench.array(layout.tables), layout.table_stride, 3},
                             shape, out, View());
    check_equal("out", bench.read(out), attention_forward(backend, shape, {{-1}, {3}}, inputs)[0]);
  });
}

TEST("attention: the reference's gradients are those of finite differences") {
  const BackendCase& reference = reference_case();
  for (const AttentionShape& shape : {make_shape(2, 1, 4), make_shape(2, 2, 2, 3)}) {
    const SmallForest forest = {{-1, 0, 0, -1}, {3, 2, 3, 2}};
    const Inputs inputs = some_inputs(shape, 10, DType::Float64);
    const Values dout = normal(10 * shape.heads * shape.head_dim, 4);
    const Results gradients =
        attention_backward(reference, shape, forest, inputs, attention_forward(reference, shape, forest, inputs), dout);
    const auto loss = [&](const Inputs& inputs) {
      return inner(attention_forward(reference, shape, forest, inputs)[0], dout);
    };
    check_gradient("dq", [&](const Values& q) { return loss({q, inputs.k, inputs.v}); }, inputs.q, gradients[0]);
    check_gradient("dk", [&](const Values& k) { return loss({inputs.q, k, inputs.v}); }, inputs.k, gradients[1]);
    check_gradient("dv", [&](const Values& v) { return loss({inputs.q, inputs.k, v}); }, inputs.v, gradients[2]);
  }
}

TEST("attention: a row's bits do not depend on sharing, page numbers, run lengths, or on decoding alone") {
  for_each_backend([](const BackendCase& backend) {
    std::vector<AttentionShape> shapes = shapes_of_bits(backend);
    shapes.push_back(make_shape(20, 1, 8));
    for (const AttentionShape& shape : shapes)
      for (const SmallForest& forest : kForests) {
        const Inputs inputs = some_inputs(shape, rows_in(forest), backend.dtype);
        const Results whole = attention_forward(backend, shape, forest, inputs);
        const auto check = [&](const char* what, const Results& other) {
          check_equal(what, other[0], whole[0]);
          check_equal(what, other[1], whole[1]);
        };
        check("pages not shared", attention_forward(backend, shape, forest, inputs, {.shared = false, .seed = 2}));
        for (int longest : {1, 2, 5, 16, 31})
          check("runs cut", attention_forward(backend, shape, forest, inputs, {.longest_run = longest, .seed = 3}));
        if (rows_in(forest) < 100)
          check("decoded row by row", attention_forward(backend, shape, forest, inputs, {.seed = 4}, Calls::RowByRow));
      }
  });
}

TEST("attention: a forest and its flattened sequences agree, bit for bit") {
  for_each_backend([](const BackendCase& backend) {
    for (const AttentionShape& shape : shapes_of_bits(backend))
      for (const SmallForest& forest : kForests) {
        const std::int64_t q_cols = static_cast<std::int64_t>(shape.heads) * shape.head_dim,
                           kv_cols = static_cast<std::int64_t>(shape.kv_heads) * shape.head_dim;
        const Inputs inputs = some_inputs(shape, rows_in(forest), backend.dtype);
        const Flattened flat = flatten(forest);
        Inputs repeated;
        Values expected;
        const Values out = attention_forward(backend, shape, forest, inputs)[0];
        const auto append = [](Values& to, const Values& from) { to.insert(to.end(), from.begin(), from.end()); };
        for (std::int32_t row : flat.rows) {
          append(repeated.q, rows_of(inputs.q, q_cols, row, 1));
          append(repeated.k, rows_of(inputs.k, kv_cols, row, 1));
          append(repeated.v, rows_of(inputs.v, kv_cols, row, 1));
          append(expected, rows_of(out, q_cols, row, 1));
        }
        check_equal("out", attention_forward(backend, shape, flat.forest, repeated)[0], expected);
      }
  });
}

TEST("attention: however many rows there are, each has its bits") {
  for_each_backend([](const BackendCase& backend) {
    for (const AttentionShape& shape : {make_shape(3, 1, 64), make_shape(1, 1, 128, 20)}) {
      const std::int64_t q_cols = shape.heads * shape.head_dim, kv_cols = shape.kv_heads * shape.head_dim;
      const Inputs inputs = some_inputs(shape, 40, backend.dtype);
      const Results whole = attention_forward(backend, shape, {{-1}, {40}}, inputs);
      for (int rows : {1, 2, 3, 5, 8, 9, 15, 16, 17, 24, 31, 32, 33, 39}) {
        const Inputs first = {rows_of(inputs.q, q_cols, 0, rows), rows_of(inputs.k, kv_cols, 0, rows),
                              rows_of(inputs.v, kv_cols, 0, rows)};
        const Results some = attention_forward(backend, shape, {{-1}, {rows}}, first);
        check_equal("out", some[0], rows_of(whole[0], q_cols, 0, rows));
        check_equal("lse", some[1], rows_of(whole[1], shape.heads, 0, rows));
      }
    }
  });
}

TEST("attention: nothing depends on the number of threads") {
  check_same_in_family("attention", [](const BackendCase& backend) {
    Results all;
    for (const AttentionShape& shape : {make_shape(4, 2, 20), make_shape(6, 2, 80, 33)})
      for (const SmallForest& forest : kForests) {
        const Inputs inputs = some_inputs(shape, rows_in(forest), backend.dtype);
        const Results forward = attention_forward(backend, shape, forest, inputs);
        const Values dout = activations(backend, rows_in(forest) * shape.heads * shape.head_dim, 4);
        for (const Values& values : forward) all.push_back(values);
        for (const Values& values : attention_backward(backend, shape, forest, inputs, forward, dout))
          all.push_back(values);
      }
    return all;
  });
}

TEST("attention: a run without rows is passed over, and the others keep their bits") {
  for_each_backend([](const BackendCase& backend) {
    const AttentionShape shape = make_shape(6, 2, 20);
    const std::int64_t R = 5, H = 6 * 20, K = 2 * 20, length = 150;  // decoding: paths of 150 positions, some shorter
    const auto attend = [&](const std::vector<std::int32_t>& counts) {
      Workbench bench(backend);
      const std::int64_t P = bench->page_positions(), blocks = (length + P - 1) / P;
      const DType T = bench.activation();
      std::vector<SlotWrite> writes;
      for (std::int32_t i = 0; i < length; ++i) writes.push_back({i, i});
      std::vector<std::int32_t> tables;
      std::vector<Run> runs;
      for (std::int32_t r = 0; r < R; ++r) {
        runs.push_back({r, counts[r], static_cast<std::int32_t>(length) - 1 - 31 * r, r});
        for (std::int32_t b = 0; b < blocks; ++b) tables.push_back(b);
      }
      void* store = bench.bytes(static_cast<std::size_t>(blocks) * bench->page_bytes(shape));
      fill_pages(bench, shape, activations(backend, length * K, 1), activations(backend, length * K, 2), writes, store);
      const View out = bench.output(T, R, H, Values(R * H, 0.5));
      bench->attention_forward(bench.input(T, R, H, activations(backend, R * H, 3)), store,
                               {bench.array(runs), R, 1, bench.array(tables), blocks, length}, shape, out, {});
      return bench.read(out);
    };
    const Values whole = attend({1, 1, 1, 1, 1});
    for (const std::vector<std::int32_t>& counts : {std::vector<std::int32_t>{1, 0, 1, 1, 0}, {0, 1, 0, 0, 1}, {0, 0, 0, 0, 0}}) {
      const Values some = attend(counts);
      for (std::int64_t r = 0; r < R; ++r)
        check_equal("out", rows_of(some, H, r, 1), counts[r] ? rows_of(whole, H, r, 1) : Values(H, 0.5));
    }
  });
}

TEST("attention: copied pages serve like the originals, in every layer") {
  for_each_backend([](const BackendCase& backend) {
    const AttentionShape shape = make_shape(3, 3, 20);
    Workbench bench(backend);
    const std::size_t page = bench->page_bytes(shape), layer = 6 * page + 128;
    std::vector<unsigned char> before(2 * layer), after(2 * layer);
    for (std::size_t i = 0; i < before.size(); ++i) before[i] = static_cast<unsigned char>(i * 31 + i / 251);
    void* pages = bench.bytes(2 * layer);
    bench->upload(pages, before.data(), before.size());
    bench->cache_copy(bench.array<std::int32_t>({1, 1, 4}), bench.array<std::int32_t>({0, 3, 5}), 3, shape, pages, 2,
                      layer);
    bench->download(after.data(), pages, after.size());
    for (int l = 0; l < 2; ++l)
      for (const auto& [from, to] : {std::pair{1, 0}, {1, 3}, {4, 5}})
        std::copy_n(before.begin() + l * layer + from * page, page, before.begin() + l * layer + to * page);
    CHECK(after == before);
    (void)bench.read(View());
  });
}

}  // namespace
}  // namespace foretoken::test
