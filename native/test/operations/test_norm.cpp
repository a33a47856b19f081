#include "test/operations/harness.h"

namespace foretoken::test {
namespace {

constexpr double kEpsilon = 1e-5;

/// {y, rstd}
Results norm_forward(const BackendCase& backend, std::int64_t C, const Values& x, const Values& weight) {
  Workbench bench(backend);
  const std::int64_t N = static_cast<std::int64_t>(x.size()) / C;
  const View y = bench.output(bench.activation(), N, C), rstd = bench.output(bench.accumulation(), 1, N);
  bench->norm_forward(bench.input(bench.accumulation(), N, C, x), bench.input(bench.accumulation(), 1, C, weight),
                      kEpsilon, y, rstd);
  return {bench.read(y), bench.read(rstd)};
}

/// {dx, dweight, dx_t}, the first two added to what `start` gives, the last only where it is wanted
Results norm_backward(const BackendCase& backend, std::int64_t C, const Values& x, const Values& weight,
                      const Values& rstd, const Values& dy, const Results& start, bool wants_dx_t = false) {
  Workbench bench(backend);
  const std::int64_t N = static_cast<std::int64_t>(x.size()) / C;
  const DType A = bench.accumulation();
  const View dx = bench.output(A, N, C, start[0]), dweight = bench.output(A, 1, C, start[1]);
  const View dx_t = wants_dx_t ? bench.output(bench.activation(), N, C) : View();
  bench->norm_backward(bench.input(A, N, C, x), bench.input(A, 1, C, weight), bench.input(A, 1, N, rstd),
                       bench.input(A, N, C, dy), dx, dx_t, dweight);
  Results results = {bench.read(dx), bench.read(dweight)};
  if (wants_dx_t) results.push_back(bench.read(dx_t));
  return results;
}

TEST("norm: a backend agrees with the reference") {
  for_each_backend([](const BackendCase& backend) {
    for (std::int64_t C : {8, 20, 64, 80, 96, 128, 1000})
      for (std::int64_t N : {0, 1, 2, 5, 70}) {
        const DType A = accumulation_of(backend);
        const double u = unit_roundoff(A);
        const Values x = accumulations(backend, N * C, 1), w = accumulations(backend, C, 2),
                     dy = accumulations(backend, N * C, 3);
        const Results expected = norm_forward(reference_case(), C, x, w), actual = norm_forward(backend, C, x, w);
        // Whatever its order, a sum of n terms of one sign is off by at most n · u.
        check_close("y", actual[0], expected[0], backend.dtype, C * u * largest(expected[0]));
        check_close("rstd", actual[1], expected[1], A, C * u * largest(expected[1]));

        const Values rstd = rounded(expected[1], A);
        const Results start = {accumulations(backend, N * C, 4), accumulations(backend, C, 5)};
        const Results gradients = norm_backward(reference_case(), C, x, w, rstd, dy, start);
        const Results got = norm_backward(backend, C, x, w, rstd, dy, start);
        check_close("dx", got[0], gradients[0], A, 2 * C * u * largest(gradients[0]));
        check_close("dweight", got[1], gradients[1], A, (N + 4) * u * N * largest(dy) * largest(x));
      }
  });
}

TEST("norm: the input's gradient also comes rounded where it is wanted, and is the same") {
  for_each_backend([](const BackendCase& backend) {
    for (std::int64_t C : {20, 96, 2056}) {
      const std::int64_t N = 67;
      const Values x = accumulations(backend, N * C, 1), w = accumulations(backend, C, 2), dy = accumulations(backend, N * C, 3);
      const Values rstd = norm_forward(backend, C, x, w)[1];
      const Results start = {accumulations(backend, N * C, 4), accumulations(backend, C, 5)};
      const Results alone = norm_backward(backend, C, x, w, rstd, dy, start), both = norm_backward(backend, C, x, w, rstd, dy, start, true);
      check_equal("dx", both[0], alone[0]);
      check_equal("dweight", both[1], alone[1]);
      check_equal("dx_t", both[2], rounded(alone[0], backend.dtype));
    }
  });
}

TEST("norm: the reference's gradients are those of finite differences") {
  const std::int64_t C = 6, N = 3;
  const Values x = normal(N * C, 1), w = normal(C, 2), dy = normal(N * C, 3);
  const Values rstd = norm_forward(reference_case(), C, x, w)[1];
  const Results zero = {Values(N * C), Values(C)};
  const Results gradients = norm_backward(reference_case(), C, x, w, rstd, dy, zero);
  check_gradient(
      "dx", [&](const Values& x) { return inner(norm_forward(reference_case(), C, x, w)[0], dy); }, x, gradients[0]);
  check_gradient(
      "dweight", [&](const Values& w) { return inner(norm_forward(reference_case(), C, x, w)[0], dy); }, w,
      gradients[1]);
}

TEST("norm: a row's bits do not depend on the batch, gradients' bits not on threads") {
  for_each_backend([](const BackendCase& backend) {
    for (std::int64_t C : {20, 80, 576}) {
      const std::int64_t N = 37;
      const Values x = accumulations(backend, N * C, 1), w = accumulations(backend, C, 2);
      check_rows_independent("y", N, C, [&](std::int64_t begin, std::int64_t count) {
        return norm_forward(backend, C, rows_of(x, C, begin, count), w)[0];
      });
    }
  });
  check_same_in_family("norm", [](const BackendCase& backend) {
    const std::int64_t C = 80, N = 301;
    const Values x = accumulations(backend, N * C, 1), w = accumulations(backend, C, 2),
                 dy = accumulations(backend, N * C, 3);
    Results all = norm_forward(backend, C, x, w);
    const Results start = {accumulations(backend, N * C, 4), accumulations(backend, C, 5)};
    for (Values& gradient : norm_backward(backend, C, x, w, all[1], dy, start)) all.push_back(gradient);
    return all;
  });
}

}  // namespace
}  // namespace foretoken::test
