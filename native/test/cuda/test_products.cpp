#include <algorithm>
#include <cmath>
#include <cstring>
#include <list>

#include "backend/cuda_library.h"
#include "test/cuda/emulated.h"
#include "test/operations/harness.h"

// Products as the engine does them, rows contiguous and aligned, so that on a GPU (scripts/gpu-check.sh) the libraries do
// them and not our own kernels: real shapes and many rows there, small ones here.
namespace foretoken::test {
namespace {

struct Shape {
  std::int64_t outputs, inputs;
};

bool on_gpu() { return std::getenv("FORETOKEN_TEST_CUDA") != nullptr; }

std::vector<Shape> shapes() {
  if (!on_gpu()) return {{24, 40}, {136, 72}};
  return {{1152, 896}, {896, 4864}, {9728, 896}, {2048, 1536}, {1536, 8960}, {4096, 64}, {8209, 128}};
}
std::vector<std::int64_t> batches() {
  if (!on_gpu()) return {1, 3, 16, 17, 70};
  return {1, 2, 7, 16, 17, 64, 65, 200, 256, 257, 1000, 1024, 1025, 2000};
}

/// A backend and matrices in its memory.
struct Device {
  explicit Device(DType dtype) : backend(make_cuda_backend(emulated_library(), -1, dtype)), dtype(dtype) {}

  View place(DType type, std::int64_t rows, std::int64_t cols, const Values& values) {
    const View x = empty(type, rows, cols);
    const std::vector<float> floats(values.begin(), values.end());
    const std::vector<BFloat16> narrow(floats.begin(), floats.end());
    if (type == DType::Float32) backend->upload(x.data, floats.data(), floats.size() * sizeof(float));
    else backend->upload(x.data, narrow.data(), narrow.size() * sizeof(BFloat16));
    return x;
  }
  View empty(DType type, std::int64_t rows, std::int64_t cols) {
    buffers.emplace_back(*backend, static_cast<std::size_t>(rows * cols) * size_of(type));
    return {buffers.back().data(), type, rows, cols};
  }
  std::vector<float> read(const View& x) {
    std::vector<float> values(static_cast<std::size_t>(x.elements()));
    if (x.dtype == DType::Float32) {
      backend->download(values.data(), x.data, values.size() * sizeof(float));
    } else {
      std::vector<BFloat16> narrow(values.size());
      backend->download(narrow.data(), x.data, narrow.size() * sizeof(BFloat16));
      std::transform(narrow.begin(), narrow.end(), values.begin(), [](BFloat16 x) { return static_cast<float>(x); });
    }
    return values;
  }

  std::unique_ptr<Backend> backend;
  DType dtype;
  std::list<Buffer> buffers;
};

/// The first rows of `many` are `few`, bit for bit.
void check_first_rows(const std::vector<float>& few, const std::vector<float>& many) {
  CHECK(few.size() <= many.size());
  CHECK(std::memcmp(few.data(), many.data(), few.size() * sizeof(float)) == 0);
}

/// Normal numbers as T holds them; from the millionth on they come again, as making them for real shapes takes minutes.
Values numbers(std::int64_t count, std::uint32_t seed, DType T) {
  constexpr std::int64_t most = 1000003;  // a prime: no two rows or columns are the same
  Values values = rounded(normal(std::min(count, most), seed), T);
  values.reserve(static_cast<std::size_t>(count));
  for (std::int64_t i = most; i < count; ++i) values.push_back(values[static_cast<std::size_t>(i - most)]);
  return values;
}

/// Element (row, col) is the sum of `terms` products that `term` gives, within what `terms` roundings can do.
void check_element(double actual, DType stored, std::int64_t terms, double start, const auto& term) {
  double sum = start, absolute = std::fabs(start);
  for (std::int64_t i = 0; i < terms; ++i) {
    sum += term(i);
    absolute += std::fabs(term(i));
  }
  CHECK_CLOSE(actual, sum, unit_roundoff(stored) * std::fabs(sum) + static_cast<double>(terms + 2) * unit_roundoff(DType::Float32) * absolute);
}

TEST("products: a row's bits do not depend on how many there are, and are right") {
  for (const DType T : {DType::Float32, DType::BFloat16})
    for (const Shape& s : shapes()) {
      Device device(T);
      Backend& b = *device.backend;
      const std::vector<std::int64_t> rows = batches();
      const std::int64_t most = rows.back(), O = s.outputs, I = s.inputs;
      const Values x = numbers(most * I, 1, T), w = numbers(O * I, 2, T), dy = numbers(most * O, 3, T);
      const Values bias = numbers(O, 4, DType::Float32), residual = numbers(most * std::max(O, I), 5, DType::Float32);
      const auto weight = b.make_weight(O, I, true);
      b.pack_weight(*weight, device.place(DType::Float32, O, I, w));
      const View X = device.place(T, most, I, x), DY = device.place(T, most, O, dy), B = device.place(DType::Float32, 1, O, bias);
      const View start = device.place(DType::Float32, most, std::max(O, I), residual);
      struct Case {
        DType out;
        bool bias, residual, backward;
      };
      for (const Case& c : {Case{T, false, false, false}, {DType::Float32, true, true, false}, {T, true, false, false},
                            {DType::Float32, false, true, false}, {T, false, false, true}, {DType::Float32, false, true, true}}) {
        const std::int64_t cols = c.backward ? I : O;
        std::vector<float> whole;
        for (auto batch = rows.rbegin(); batch != rows.rend(); ++batch) {
          const View y = device.empty(c.out, *batch, cols), r(start.data, DType::Float32, *batch, cols);
          if (c.backward) {
            if (c.residual) b.convert(r, y);
            b.linear_backward_input(DY.slice_rows(0, *batch), *weight, y, c.residual);
          } else {
            b.linear_forward(X.slice_rows(0, *batch), *weight, c.bias ? B : View(), c.residual ? r : View(), y);
          }
          const std::vector<float> values = device.read(y);
          device.buffers.pop_back();
          if (!whole.empty()) {
            check_first_rows(values, whole);
            continue;
          }
          whole = values;
          for (int sample = 0; sample < 50; ++sample) {
            const std::int64_t row = sample * 7919 % most, col = sample * 104729 % cols;
            const double first = (c.bias ? bias[static_cast<std::size_t>(col)] : 0) +
                                 (c.residual ? static_cast<float>(residual[static_cast<std::size_t>(row * cols + col)]) : 0);
            check_element(whole[static_cast<std::size_t>(row * cols + col)], c.out, c.backward ? O : I, first, [&](std::int64_t i) {
              return c.backward ? dy[static_cast<std::size_t>(row * O + i)] * w[static_cast<std::size_t>(i * I + col)]
                                : x[static_cast<std::size_t>(row * I + i)] * w[static_cast<std::size_t>(col * I + i)];
            });
          }
        }
      }
    }
}

TEST("products: a weight's gradient is right, and the same again") {
  for (const DType T : {DType::Float32, DType::BFloat16})
    for (const Shape& s : shapes())
      for (const std::int64_t N : {batches()[2], batches().back()}) {
        Device device(T);
        Backend& b = *device.backend;
        const std::int64_t O = s.outputs, I = s.inputs;
        const Values x = numbers(N * I, 1, T), dy = numbers(N * O, 2, T), start = numbers(O * I, 3, DType::Float32);
        const View X = device.place(T, N, I, x), DY = device.place(T, N, O, dy);
        std::vector<float> first;
        for (int time = 0; time < 2; ++time) {
          const View dw = device.place(DType::Float32, O, I, start);
          b.linear_backward_weight(DY, X, dw);
          const std::vector<float> values = device.read(dw);
          if (time == 1) { check_first_rows(values, first); continue; }
          first = values;
          for (int sample = 0; sample < 50; ++sample) {
            const std::int64_t row = sample * 7919 % O, col = sample * 104729 % I;
            check_element(values[static_cast<std::size_t>(row * I + col)], DType::Float32, N, start[static_cast<std::size_t>(row * I + col)],
                          [&](std::int64_t n) { return dy[static_cast<std::size_t>(n * O + row)] * x[static_cast<std::size_t>(n * I + col)]; });
          }
        }
      }
}

}  // namespace
}  // namespace foretoken::test
