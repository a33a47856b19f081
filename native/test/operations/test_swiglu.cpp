#include "test/operations/harness.h"

namespace foretoken::test {
namespace {

Values swiglu_forward(const BackendCase& backend, std::int64_t F, const Values& gate_up) {
  Workbench bench(backend);
  const std::int64_t N = static_cast<std::int64_t>(gate_up.size()) / (2 * F);
  const View h = bench.output(bench.activation(), N, F);
  bench->swiglu_forward(bench.input(bench.activation(), N, 2 * F, gate_up), h);
  return bench.read(h);
}

Values swiglu_backward(const BackendCase& backend, std::int64_t F, const Values& dh, const Values& gate_up) {
  Workbench bench(backend);
  const std::int64_t N = static_cast<std::int64_t>(gate_up.size()) / (2 * F);
  const View dgate_up = bench.output(bench.activation(), N, 2 * F);
  bench->swiglu_backward(bench.input(bench.activation(), N, F, dh),
                         bench.input(bench.activation(), N, 2 * F, gate_up), dgate_up);
  return bench.read(dgate_up);
}

TEST("swiglu: a backend agrees with the reference") {
  for_each_backend([](const BackendCase& backend) {
    const double u = unit_roundoff(accumulation_of(backend));
    for (std::int64_t F : {1, 8, 20, 96, 257})
      for (std::int64_t N : {0, 1, 6, 50}) {
        const Values gate_up = activations(backend, N * 2 * F, 1, 4), dh = activations(backend, N * F, 2);
        const Values expected = swiglu_forward(reference_case(), F, gate_up);
        check_close("h", swiglu_forward(backend, F, gate_up), expected, backend.dtype, 16 * u * largest(expected));
        const Values gradient = swiglu_backward(reference_case(), F, dh, gate_up);
        check_close("dgate_up", swiglu_backward(backend, F, dh, gate_up), gradient, backend.dtype,
                    16 * u * largest(gradient));
      }
  });
}

TEST("swiglu: gates far from zero neither overflow nor vanish") {
  for_each_backend([](const BackendCase& backend) {
    const Values gate_up = {-1e4, -200, -90, -30, 0, 30, 90, 200, 1e4, /* up */ 1, 1, 1, 1, 1, 1, 1, 1, 1};
    const Values in_dtype = rounded(gate_up, backend.dtype), h = swiglu_forward(backend, 9, in_dtype);
    for (int i = 0; i < 4; ++i) CHECK_CLOSE(h[i], 0, 1e-10);
    CHECK_EQ(h[4], 0.0);
    for (int i = 5; i < 9; ++i) CHECK_CLOSE(h[i], in_dtype[i], 1e-6 * in_dtype[i]);
    for (double d : swiglu_backward(backend, 9, Values(9, 1), in_dtype)) CHECK(std::isfinite(d));
  });
}

TEST("swiglu: the reference's gradient is that of finite differences") {
  const Values gate_up = normal(2 * 2 * 5, 1), dh = normal(2 * 5, 2);
  check_gradient(
      "dgate_up", [&](const Values& x) { return inner(swiglu_forward(reference_case(), 5, x), dh); }, gate_up,
      swiglu_backward(reference_case(), 5, dh, gate_up));
}

TEST("swiglu: a row's bits depend on neither batch nor threads") {
  for_each_backend([](const BackendCase& backend) {
    const std::int64_t N = 21, F = 45;
    const Values gate_up = activations(backend, N * 2 * F, 1), dh = activations(backend, N * F, 2);
    check_rows_independent("h", N, F, [&](std::int64_t begin, std::int64_t count) {
      return swiglu_forward(backend, F, rows_of(gate_up, 2 * F, begin, count));
    });
    check_rows_independent("dgate_up", N, 2 * F, [&](std::int64_t begin, std::int64_t count) {
      return swiglu_backward(backend, F, rows_of(dh, F, begin, count), rows_of(gate_up, 2 * F, begin, count));
    });
  });
  check_same_in_family("swiglu", [](const BackendCase& backend) {
    const std::int64_t N = 90, F = 200;
    const Values gate_up = activations(backend, N * 2 * F, 1), dh = activations(backend, N * F, 2);
    return Results{swiglu_forward(backend, F, gate_up), swiglu_backward(backend, F, dh, gate_up)};
  });
}

}  // namespace
}  // namespace foretoken::test
