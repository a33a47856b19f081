#include <array>

#include "test/operations/harness.h"

namespace foretoken::test {
namespace {

struct Shape {
  std::int64_t N, I, O;  // tokens, inputs, outputs
};

constexpr Shape kShapes[] = {{1, 8, 8},    {1, 20, 37},  {3, 80, 96},   {5, 96, 80},    {0, 64, 48},  {7, 33, 1},
                             {16, 64, 64}, {13, 1, 130}, {70, 128, 72}, {64, 200, 257}, {33, 300, 50}};

struct Options {
  bool bias = false, residual = false, in_place = false, accumulated_output = false;
};

constexpr Options kOptions[] = {{},
                                {.bias = true},
                                {.residual = true, .accumulated_output = true},
                                {.bias = true, .residual = true, .in_place = true, .accumulated_output = true}};

/// y = x · wᵀ [+ bias] [+ residual]
Values linear_forward(const BackendCase& backend, const Shape& s, const Values& x, const Values& w, const Values& bias,
                      const Values& residual, const Options& options) {
  Workbench bench(backend);
  const DType A = bench.accumulation();
  const auto weight = bench->make_weight(s.O, s.I, true);
  CHECK_EQ(weight->bytes(), bench->weight_bytes(s.O, s.I, true));
  bench->pack_weight(*weight, bench.input(A, s.O, s.I, w));
  const View y = bench.output(options.accumulated_output ? A : bench.activation(), s.N, s.O,
                              options.in_place ? residual : Values());
  bench->linear_forward(bench.input(bench.activation(), s.N, s.I, x), *weight,
                        options.bias ? bench.input(A, 1, s.O, bias) : View(),
                        options.in_place   ? y
                        : options.residual ? bench.input(A, s.N, s.O, residual)
                                           : View(),
                        y);
  return bench.read(y);
}

/// dx = dy · w [+ start]
Values linear_backward_input(const BackendCase& backend, const Shape& s, const Values& dy, const Values& w, DType out,
                             const Values& start) {
  Workbench bench(backend);
  const auto weight = bench->make_weight(s.O, s.I, true);
  bench->pack_weight(*weight, bench.input(bench.accumulation(), s.O, s.I, w));
  const View dx = bench.output(out, s.N, s.I, start);
  bench->linear_backward_input(bench.input(bench.activation(), s.N, s.O, dy), *weight, dx, !start.empty());
  return bench.read(dx);
}

/// {dweight, dbias}, added to start
Results linear_backward_weight(const BackendCase& backend, const Shape& s, const Values& dy, const Values& x,
                               const Results& start) {
  Workbench bench(backend);
  const DType A = bench.accumulation(), T = bench.activation();
  const View dweight = bench.output(A, s.O, s.I, start[0]), dbias = bench.output(A, 1, s.O, start[1]);
  const View dy_view = bench.input(T, s.N, s.O, dy);
  bench->linear_backward_weight(dy_view, bench.input(T, s.N, s.I, x), dweight);
  bench->bias_backward(dy_view, dbias);
  return {bench.read(dweight), bench.read(dbias)};
}

TEST("linear: a backend agrees with the reference") {
  for_each_backend([](const BackendCase& backend) {
    const DType A = accumulation_of(backend);
    const double u = unit_roundoff(A);
    for (const Shape& s : kShapes) {
      const Values x = activations(backend, s.N * s.I, 1), w = activations(backend, s.O * s.I, 2);
      const Values bias = accumulations(backend, s.O, 3), residual = accumulations(backend, s.N * s.O, 4);
      for (const Options& options : kOptions) {
        const Values expected = linear_forward(reference_case(), s, x, w, bias, residual, options);
        // The classical bound for any order: (terms) · u · Σ |terms|.
        Values bounds =
            linear_forward(reference_case(), s, absolute(x), absolute(w), absolute(bias), absolute(residual), options);
        for (double& bound : bounds) bound *= (s.I + 2) * u;
        check_close("y", linear_forward(backend, s, x, w, bias, residual, options), expected,
                    options.accumulated_output ? A : backend.dtype, bounds);
      }

      const Values dy = activations(backend, s.N * s.O, 5), dx_start = accumulations(backend, s.N * s.I, 6);
      for (const Values& start : {Values(), dx_start})
        for (DType out : {A, backend.dtype}) {
          if (!start.empty() && out != A) continue;
          const DType exact = DType::Float64;
          const Values expected = linear_backward_input(reference_case(), s, dy, w, exact, start);
          Values bounds = linear_backward_input(reference_case(), s, absolute(dy), absolute(w), exact, absolute(start));
          for (double& bound : bounds) bound *= (s.O + 1) * u;
          check_close("dx", linear_backward_input(backend, s, dy, w, out, start), expected, out, bounds);
        }

      const Results start = {accumulations(backend, s.O * s.I, 7), accumulations(backend, s.O, 8)};
      const Results expected = linear_backward_weight(reference_case(), s, dy, x, start);
      Results bounds = linear_backward_weight(reference_case(), s, absolute(dy), absolute(x),
                                              {absolute(start[0]), absolute(start[1])});
      for (Values& values : bounds)
        for (double& bound : values) bound *= (s.N + 1) * u;
      const Results actual = linear_backward_weight(backend, s, dy, x, start);
      check_close("dweight", actual[0], expected[0], A, bounds[0]);
      check_close("dbias", actual[1], expected[1], A, bounds[1]);
    }
  });
}

TEST("linear: the reference's gradients are those of finite differences") {
  const Shape s{3, 4, 5};
  const Values x = normal(s.N * s.I, 1), w = normal(s.O * s.I, 2), b = normal(s.O, 3), dy = normal(s.N * s.O, 4);
  const auto loss = [&](const Values& x, const Values& w, const Values& b) {
    return inner(linear_forward(reference_case(), s, x, w, b, {}, {.bias = true}), dy);
  };
  const Results weights = linear_backward_weight(reference_case(), s, dy, x, {Values(s.O * s.I), Values(s.O)});
  check_gradient(
      "dx", [&](const Values& x) { return loss(x, w, b); }, x,
      linear_backward_input(reference_case(), s, dy, w, DType::Float64, {}));
  check_gradient("dweight", [&](const Values& w) { return loss(x, w, b); }, w, weights[0]);
  check_gradient("dbias", [&](const Values& b) { return loss(x, w, b); }, b, weights[1]);
}

TEST("linear: a weight is rounded to the activation dtype when it is packed, from any master") {
  for_each_backend([](const BackendCase& backend) {
    const Shape s{2, 24, 40};
    const Values w = rounded(normal(s.O * s.I, 1), DType::BFloat16), x = activations(backend, s.N * s.I, 2);
    const Values expected = linear_forward(backend, s, x, w, {}, {}, {});
    for (DType master : {DType::Float64, DType::Float32, DType::BFloat16}) {
      Workbench bench(backend);
      const auto weight = bench->make_weight(s.O, s.I, false);
      CHECK_EQ(weight->bytes(), bench->weight_bytes(s.O, s.I, false));
      bench->pack_weight(*weight, bench.input(master, s.O, s.I, normal(s.O * s.I, 9)));
      bench->pack_weight(*weight, bench.input(master, s.O, s.I, w));  // the second packing replaces the first
      const View y = bench.output(bench.activation(), s.N, s.O);
      bench->linear_forward(bench.input(bench.activation(), s.N, s.I, x), *weight, View(), View(), y);
      check_equal("y", bench.read(y), expected);
    }
    if (backend.dtype == DType::BFloat16) {
      const Values exact = normal(s.O * s.I, 3);
      check_equal("y of a rounded weight", linear_forward(backend, s, x, exact, {}, {}, {}),
                  linear_forward(backend, s, x, rounded(rounded(exact, DType::Float32), DType::BFloat16), {}, {}, {}));
    }
  });
}

TEST("linear: a row's bits do not depend on the batch") {
  for_each_backend([](const BackendCase& backend) {
    for (const auto& [I, O] : {std::array<std::int64_t, 2>{20, 37}, {96, 80}, {300, 130}}) {
      const std::int64_t N = 67;
      const Values x = activations(backend, N * I, 1), w = activations(backend, O * I, 2),
                   dy = activations(backend, N * O, 3);
      const Values bias = accumulations(backend, O, 4), residual = accumulations(backend, N * O, 5);
      for (const Options& options : kOptions)
        check_rows_independent("y", N, O, [&](std::int64_t begin, std::int64_t count) {
          return linear_forward(backend, {count, I, O}, rows_of(x, I, begin, count), w, bias,
                                rows_of(residual, O, begin, count), options);
        });
      check_rows_independent("dx", N, I, [&](std::int64_t begin, std::int64_t count) {
        return linear_backward_input(backend, {count, I, O}, rows_of(dy, O, begin, count), w, backend.dtype, {});
      });
    }
  });
}

TEST("linear: nothing depends on the number of threads") {
  check_same_in_family("linear", [](const BackendCase& backend) {
    const Shape s{150, 96, 200};
    const Values x = activations(backend, s.N * s.I, 1), w = activations(backend, s.O * s.I, 2),
                 dy = activations(backend, s.N * s.O, 3);
    Results all = linear_backward_weight(backend, s, dy, x,
                                         {accumulations(backend, s.O * s.I, 4), accumulations(backend, s.O, 5)});
    all.push_back(linear_forward(backend, s, x, w, {}, {}, {}));
    all.push_back(linear_backward_input(backend, s, dy, w, backend.dtype, {}));
    return all;
  });
}

}  // namespace
}  // namespace foretoken::test
