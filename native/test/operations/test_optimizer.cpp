#include <algorithm>
#include <limits>

#include "test/operations/harness.h"

namespace foretoken::test {
namespace {

const AdamW kOptions{.learning_rate = 0.01,
                     .beta1 = 0.9,
                     .beta2 = 0.95,
                     .epsilon = 1e-8,
                     .weight_decay = 0.1,
                     .step = 3,
                     .rounding_seed = 17,
                     .rounding_stream = 5};

/// {master, m, v} after one update
Results adamw(const BackendCase& backend, std::int64_t rows, std::int64_t cols, DType master_dtype, DType moment_dtype,
              const Values& master, const Values& m, const Values& v, const Values& gradient, AdamW options, double gradient_scale = 0.5) {
  Workbench bench(backend);
  options.gradient_scale = bench.array(std::vector<double>{gradient_scale});
  const View master_view = bench.output(master_dtype, rows, cols, master);
  const View m_view = bench.output(moment_dtype, rows, cols, m), v_view = bench.output(moment_dtype, rows, cols, v);
  bench->adamw(master_view, m_view, v_view, bench.input(bench.accumulation(), rows, cols, gradient), options);
  return {bench.read(master_view), bench.read(m_view), bench.read(v_view)};
}

struct State {
  Values master, m, v, gradient;
};

State some_state(const BackendCase& backend, std::int64_t count, DType master, DType moments) {
  return {rounded(normal(count, 1), master), rounded(normal(count, 2, 0.1), moments),
          rounded(absolute(normal(count, 3, 0.01)), moments), accumulations(backend, count, 4)};
}

TEST("adamw: a backend agrees with the reference") {
  for_each_backend([](const BackendCase& backend) {
    const DType dtype = accumulation_of(backend);
    for (std::int64_t rows : {0, 1, 5})
      for (std::int64_t cols : {1, 16, 37, 300}) {
        const State s = some_state(backend, rows * cols, dtype, dtype);
        const Results expected = adamw(reference_case(), rows, cols, DType::Float64, DType::Float64, s.master, s.m, s.v,
                                       s.gradient, kOptions);
        const Results actual = adamw(backend, rows, cols, dtype, dtype, s.master, s.m, s.v, s.gradient, kOptions);
        const Values* before[] = {&s.master, &s.m, &s.v};
        for (int i = 0; i < 3; ++i)  // relative to what is added up, which may cancel
          check_close("state", actual[i], expected[i], dtype,
                      8 * unit_roundoff(dtype) * std::max(largest(expected[i]), largest(*before[i])));
      }
  });
}

TEST("adamw: three steps of torch.optim.AdamW") {
  // torch 2, float64: lr 0.01, betas (0.9, 0.95), eps 1e-8, weight_decay 0.1
  for_each_backend([](const BackendCase& backend) {
    const DType A = accumulation_of(backend);
    Results state = {{1.5, -0.75, 0.25}, {0, 0, 0}, {0, 0, 0}};
    const Values gradients[] = {{0.5, -2.0, 0.125}, {-0.25, 1.0, 0.0}, {3.0, 0.5, -0.0625}};
    AdamW options = kOptions;
    for (options.step = 1; options.step <= 3; ++options.step) {
      Values doubled = gradients[options.step - 1];  // the scale is 0.5
      for (double& value : doubled) value *= 2;
      state = adamw(backend, 1, 3, A, A, state[0], state[1], state[2], doubled, options);
    }
    const double tolerance = 16 * unit_roundoff(A);
    check_close("master", state[0], {1.4763394904622322, -0.7344660649427658, 0.2306914141873539}, A, tolerance);
    check_close("m", state[1], {0.318, -0.022, 0.003875}, A, tolerance);
    check_close("v", state[2], {0.46425, 0.2405, 0.000900390625}, A, tolerance);
  });
}

TEST("adamw: the first step from zero moves by the learning rate against the gradient's sign") {
  for_each_backend([](const BackendCase& backend) {
    AdamW options = kOptions;
    options.step = 1;
    options.weight_decay = 0;
    const Results result =
        adamw(backend, 1, 3, DType::Float32, DType::Float32, {1, 1, 1}, {0, 0, 0}, {0, 0, 0}, {3, -0.25, 0}, options, 1);
    CHECK_CLOSE(result[0][0], 0.99, 1e-6);
    CHECK_CLOSE(result[0][1], 1.01, 1e-6);
    CHECK_EQ(result[0][2], 1.0);
  });
}

TEST("adamw: bfloat16 state becomes one of the neighbours of the exact value, and the right one on average") {
  for_each_backend([](const BackendCase& backend) {
    for (const auto& [rows, cols] : {std::pair<std::int64_t, std::int64_t>{3, 5000}, {1, 20000}}) {
      const std::int64_t count = rows * cols;
      const DType stored = DType::BFloat16;
      // Every element is the same, so the mean over elements estimates the expectation of the rounding.
      const Values master(count, 1.0), m(count, 0.5), v(count, 0.25), gradient(count, 0.375);
      AdamW options = kOptions;
      options.learning_rate = 1e-4;  // far below half a unit in the last place: rounding to nearest would lose it
      const Results exact =
          adamw(reference_case(), 1, 1, DType::Float64, DType::Float64, {1.0}, {0.5}, {0.25}, {0.375}, options);
      const Results actual = adamw(backend, rows, cols, stored, stored, master, m, v, gradient, options);
      for (int i = 0; i < 3; ++i) {
        const double expected = exact[i][0], gap = std::ldexp(1.0, std::ilogb(expected) - 7);
        double mean = 0;
        for (double value : actual[i]) {
          CHECK(std::fabs(value - expected) < gap * (1 + 1e-4));
          mean += value / count;
        }
        // Standard deviation of one rounding is at most gap / 2; five of the mean's.
        CHECK_CLOSE(mean, expected, 5 * gap / 2 / std::sqrt(count));
      }
      // The same random words as the reference: only values within float32's rounding of a border may go the other way.
      const Results reference = adamw(reference_case(), rows, cols, stored, stored, master, m, v, gradient, options);
      for (int i = 0; i < 3; ++i) {
        int different = 0;
        for (std::int64_t e = 0; e < count; ++e) different += actual[i][e] != reference[i][e];
        CHECK(different <= count / 1000);
      }
      CHECK(adamw(backend, rows, cols, stored, stored, master, m, v, gradient, options) == actual);
      options.rounding_stream += 1;
      CHECK(adamw(backend, rows, cols, stored, stored, master, m, v, gradient, options) != actual);
      options.rounding_stream -= 1;
      options.step += 1;
      CHECK(adamw(backend, rows, cols, stored, stored, master, m, v, gradient, options) != actual);
    }
  });
}

TEST("adamw: master and moments may have different dtypes, and NaN stays NaN") {
  for_each_backend([](const BackendCase& backend) {
    const std::int64_t cols = 50;
    const State s = some_state(backend, cols, DType::Float32, DType::BFloat16);
    const Results expected =
        adamw(reference_case(), 1, cols, DType::Float64, DType::Float64, s.master, s.m, s.v, s.gradient, kOptions);
    const Results actual =
        adamw(backend, 1, cols, DType::Float32, DType::BFloat16, s.master, s.m, s.v, s.gradient, kOptions);
    check_close("master", actual[0], expected[0], DType::Float32,
                8 * unit_roundoff(DType::Float32) * largest(expected[0]));
    Values gradient = s.gradient;
    gradient[7] = std::numeric_limits<double>::quiet_NaN();
    const Results poisoned =
        adamw(backend, 1, cols, DType::BFloat16, DType::BFloat16, s.m, s.m, s.v, gradient, kOptions);
    for (const Values& values : poisoned)
      for (std::int64_t c = 0; c < cols; ++c) CHECK_EQ(std::isnan(values[c]), c == 7);
  });
}

TEST("adamw: nothing depends on the number of threads") {
  check_same_in_family("adamw", [](const BackendCase& backend) {
    Results all;
    for (DType dtype : {DType::Float32, DType::BFloat16}) {
      const State s = some_state(backend, 40 * 700, dtype, dtype);
      for (Values& values : adamw(backend, 40, 700, dtype, dtype, s.master, s.m, s.v, s.gradient, kOptions))
        all.push_back(values);
    }
    return all;
  });
}

TEST("adamw: a scale of NaN, that of gradients which are not finite, changes nothing") {
  for_each_backend([](const BackendCase& backend) {
    for (DType dtype : {accumulation_of(backend), DType::BFloat16}) {
      const State s = some_state(backend, 3 * 70, dtype, dtype);
      CHECK(adamw(backend, 3, 70, dtype, dtype, s.master, s.m, s.v, s.gradient, kOptions, std::nan("")) ==
            (Results{s.master, s.m, s.v}));
    }
  });
}

TEST("clip_norm: brings the norm down to the greatest that is allowed, and shows one that is not finite") {
  for_each_backend([](const BackendCase& backend) {
    const auto scale_of = [&](const std::vector<double>& squares, double max_norm) {
      Workbench bench(backend);
      const View scale = bench.output(DType::Float64, 1, 1);
      bench->clip_norm(bench.array(squares), static_cast<std::int64_t>(squares.size()), max_norm, scale.as<double>());
      return bench.read(scale)[0];
    };
    CHECK_EQ(scale_of({9, 16}, 2.5), 2.5 / (5 + 1e-6));
    CHECK_EQ(scale_of({9, 16}, 6), 1.0);
    CHECK_EQ(scale_of({9, 16}, 0), 1.0);
    CHECK_EQ(scale_of({}, 1), 1.0);
    for (double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()})
      for (double max_norm : {0.0, 1.0}) CHECK(std::isnan(scale_of({1, bad, 1}, max_norm)));
  });
}

double sum_squares(Workbench& bench, View x) {
  const View sum = bench.output(DType::Float64, 1, 1);
  bench->sum_squares(x, sum.as<double>());
  return bench.read(sum)[0];
}

TEST("sum_squares: agrees with the reference and shows NaN and infinity") {
  for_each_backend([](const BackendCase& backend) {
    for (const auto& [rows, cols] :
         std::initializer_list<std::pair<std::int64_t, std::int64_t>>{{0, 5}, {1, 1}, {3, 21}, {70, 333}}) {
      const Values x = accumulations(backend, rows * cols, 1);
      Workbench bench(backend);
      const double expected = inner(x, x);
      // The squares are exact in double; adding them up costs at most count · 2⁻⁵³.
      CHECK_CLOSE(sum_squares(bench, bench.input(bench.accumulation(), rows, cols, x)), expected,
                  expected * rows * cols * 0x1p-53);
      if (x.empty()) continue;
      for (double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
        Values poisoned = x;
        poisoned.back() = bad;
        CHECK(!std::isfinite(sum_squares(bench, bench.input(bench.accumulation(), rows, cols, poisoned))));
      }
    }
  });
  check_same_in_family("sum_squares", [](const BackendCase& backend) {
    Workbench bench(backend);
    return Results{
        {sum_squares(bench, bench.input(bench.accumulation(), 77, 1001, accumulations(backend, 77 * 1001, 1)))}};
  });
}

TEST("average: moves by the share 1 − tau") {
  for_each_backend([](const BackendCase& backend) {
    for (DType dtype : {accumulation_of(backend), DType::BFloat16}) {
      const std::int64_t rows = 4, cols = 19;
      const Values a = rounded(normal(rows * cols, 1), dtype), x = rounded(normal(rows * cols, 2), dtype);
      Workbench bench(backend);
      const View average = bench.output(dtype, rows, cols, a);
      bench->average(average, bench.input(dtype, rows, cols, x), 0.75);
      Values expected;
      for (std::size_t i = 0; i < a.size(); ++i) expected.push_back(0.75 * a[i] + 0.25 * x[i]);
      check_close("average", bench.read(average), expected, dtype,
                  4 * unit_roundoff(accumulation_of(backend)) * largest(expected));
    }
  });
}

}  // namespace
}  // namespace foretoken::test
