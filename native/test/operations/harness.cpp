#include "test/operations/harness.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <map>
#include <numbers>

#include "backend/reference/element.h"
#include "core/philox.h"

namespace foretoken::test {

namespace {

constexpr std::size_t kGuard = 64;    // bytes before and after; keeps the alignment of `allocate`
// Columns after each row: odd, so rows lose their alignment. A matrix of one row has them, too, as in the engine a batch of
// one row lies like one of many; a library may choose another order of sums for other strides.
constexpr std::int64_t kPadding = 3;
constexpr std::byte kPattern{0xff};   // a NaN in every dtype, −1 in integers

}  // namespace

void for_each_backend(const std::function<void(const BackendCase&)>& body) {
  for (const BackendCase& backend : backend_cases()) {
    try {
      body(backend);
    } catch (Failure& failure) {
      failure.message = backend.name + ": " + failure.message;
      throw;
    }
  }
}

// ---- Workbench

Workbench::Operand& Workbench::add(std::size_t bytes) {
  Operand& operand = operands_.emplace_back();
  operand.buffer = Buffer(*backend_, bytes + 2 * kGuard);
  operand.before.assign(bytes + 2 * kGuard, kPattern);
  operand.writable.assign(bytes + 2 * kGuard, false);
  return operand;
}

View Workbench::matrix(DType dtype, std::int64_t rows, std::int64_t cols, const Values& values, bool writable) {
  const std::int64_t stride = cols + kPadding;
  const std::size_t size = size_of(dtype);
  Operand& operand = add(static_cast<std::size_t>(rows * stride) * size);
  const View host(operand.before.data() + kGuard, dtype, rows, cols, stride);
  for (std::int64_t n = 0; n < rows; ++n) {
    for (std::int64_t c = 0; c < cols && !values.empty(); ++c) reference::set(host, n, c, values.at(n * cols + c));
    const auto begin = operand.writable.begin() + static_cast<std::ptrdiff_t>(kGuard + n * stride * size);
    if (writable) std::fill(begin, begin + static_cast<std::ptrdiff_t>(cols * size), true);
  }
  backend_->upload(operand.buffer.data(), operand.before.data(), operand.before.size());
  return {static_cast<std::byte*>(operand.buffer.data()) + kGuard, dtype, rows, cols, stride};
}

View Workbench::input(DType dtype, std::int64_t rows, std::int64_t cols, const Values& values) {
  CHECK_EQ(static_cast<std::int64_t>(values.size()), rows * cols);
  return matrix(dtype, rows, cols, values, false);
}

View Workbench::output(DType dtype, std::int64_t rows, std::int64_t cols, const Values& initial) {
  return matrix(dtype, rows, cols, initial, true);
}

const void* Workbench::place(const void* data, std::size_t bytes) {
  Operand& operand = add(bytes);
  if (bytes) std::memcpy(operand.before.data() + kGuard, data, bytes);
  backend_->upload(operand.buffer.data(), operand.before.data(), operand.before.size());
  return static_cast<std::byte*>(operand.buffer.data()) + kGuard;
}

void* Workbench::bytes(std::size_t count) {
  Operand& operand = add(count);
  std::fill(operand.writable.begin() + kGuard, operand.writable.end() - kGuard, true);
  backend_->upload(operand.buffer.data(), operand.before.data(), operand.before.size());
  return static_cast<std::byte*>(operand.buffer.data()) + kGuard;
}

void Workbench::check_guards() {
  for (const Operand& operand : operands_) {
    std::vector<std::byte> after(operand.before.size());
    backend_->download(after.data(), operand.buffer.data(), after.size());
    for (std::size_t i = 0; i < after.size(); ++i)
      if (!operand.writable[i] && after[i] != operand.before[i])
        fail_check(__FILE__, __LINE__, "a stray write at byte ", static_cast<std::ptrdiff_t>(i - kGuard),
                   " of an operand of ", after.size() - 2 * kGuard, " bytes");
  }
}

Values Workbench::read(const View& view) {
  check_guards();
  if (view.elements() == 0) return {};
  const std::int64_t span = (view.rows - 1) * view.stride + view.cols;
  std::vector<std::byte> host(static_cast<std::size_t>(span) * size_of(view.dtype));
  backend_->download(host.data(), view.data, host.size());
  const View copy(host.data(), view.dtype, view.rows, view.cols, view.stride);
  Values values;
  for (std::int64_t n = 0; n < view.rows; ++n)
    for (std::int64_t c = 0; c < view.cols; ++c) values.push_back(reference::get(copy, n, c));
  return values;
}

std::vector<std::int32_t> Workbench::read_integers(const std::int32_t* data, std::int64_t count) {
  check_guards();
  std::vector<std::int32_t> values(static_cast<std::size_t>(count));
  backend_->download(values.data(), data, values.size() * sizeof(std::int32_t));
  return values;
}

// ---- numbers

Values normal(std::int64_t count, std::uint32_t seed, double scale) {
  Values values(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) {
    const auto words = random_words(seed, RandomUse::Initialisation, 0, static_cast<std::uint64_t>(i));
    const double radius = std::sqrt(-2 * std::log(uniform_double(words[0], words[1])));
    values[i] = scale * radius * std::cos(2 * std::numbers::pi * uniform_double(words[2], words[3]));
  }
  return values;
}

Values rounded(const Values& values, DType dtype) {
  Values result(values.size());
  double cell = 0;  // room for one value of any dtype
  const View view(&cell, dtype, 1, 1);
  for (std::size_t i = 0; i < values.size(); ++i) {
    reference::set(view, 0, 0, values[i]);
    result[i] = reference::get(view, 0, 0);
  }
  return result;
}

DType accumulation_of(const BackendCase& backend) {
  return backend.dtype == DType::Float64 ? DType::Float64 : DType::Float32;
}

Values activations(const BackendCase& backend, std::int64_t count, std::uint32_t seed, double scale) {
  return rounded(normal(count, seed, scale), backend.dtype);
}

Values accumulations(const BackendCase& backend, std::int64_t count, std::uint32_t seed, double scale) {
  return rounded(normal(count, seed, scale), accumulation_of(backend));
}

Values rows_of(const Values& values, std::int64_t cols, std::int64_t begin, std::int64_t count) {
  return {values.begin() + begin * cols, values.begin() + (begin + count) * cols};
}

Values absolute(Values values) {
  for (double& value : values) value = std::fabs(value);
  return values;
}

double largest(const Values& values) {
  double result = 0;
  for (double value : values) result = std::max(result, std::fabs(value));
  return result;
}

double inner(const Values& a, const Values& b) {
  CHECK_EQ(a.size(), b.size());
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

double inner(const Results& results, const Results& weights) {
  CHECK_EQ(results.size(), weights.size());
  double sum = 0;
  for (std::size_t i = 0; i < results.size(); ++i) sum += inner(results[i], weights[i]);
  return sum;
}

double unit_roundoff(DType dtype) {
  switch (dtype) {
    case DType::Float64: return 0x1p-53;
    case DType::Float32: return 0x1p-24;
    case DType::BFloat16: return 0x1p-8;
    case DType::Float16: return 0x1p-11;
  }
  return 0;
}

// ---- comparisons

void check_close(const char* what, const Values& actual, const Values& expected, DType stored, const Values& bounds) {
  CHECK_EQ(actual.size(), expected.size());
  CHECK_EQ(bounds.size(), expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i) {
    const double tolerance = unit_roundoff(stored) * std::fabs(expected[i]) + bounds[i];
    if (!(std::fabs(actual[i] - expected[i]) <= tolerance))
      fail_check(__FILE__, __LINE__, what, '[', i, "] is ", actual[i], ", expected ", expected[i], " within ",
                 tolerance);
  }
}

void check_close(const char* what, const Values& actual, const Values& expected, DType stored, double bound) {
  check_close(what, actual, expected, stored, Values(expected.size(), bound));
}

void check_equal(const char* what, const Values& actual, const Values& expected) {
  CHECK_EQ(actual.size(), expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i)
    if (!(actual[i] == expected[i] || (std::isnan(actual[i]) && std::isnan(expected[i]))))
      fail_check(__FILE__, __LINE__, what, '[', i, "] is ", actual[i], ", expected exactly ", expected[i]);
}

void check_same_in_family(const char* what, const std::function<Results(const BackendCase&)>& operation) {
  std::map<std::string, Results> first;
  for_each_backend([&](const BackendCase& backend) {
    const Results results = operation(backend);
    const auto [known, inserted] = first.emplace(backend.family, results);
    if (inserted) return;
    CHECK_EQ(results.size(), known->second.size());
    for (std::size_t i = 0; i < results.size(); ++i) check_equal(what, results[i], known->second[i]);
  });
}

void check_rows_independent(const char* what, std::int64_t rows, std::int64_t cols,
                            const std::function<Values(std::int64_t begin, std::int64_t count)>& operation) {
  const Values whole = operation(0, rows);
  CHECK_EQ(static_cast<std::int64_t>(whole.size()), rows * cols);
  for (double value : whole) CHECK(!std::isnan(value));
  for (std::int64_t piece = 1; piece < rows; piece = piece * 2 + 1)
    for (std::int64_t begin = 0; begin < rows; begin += std::max(piece, rows / 7)) {
      const std::int64_t count = std::min(piece, rows - begin);
      check_equal(what, operation(begin, count), rows_of(whole, cols, begin, count));
    }
}

void check_gradient(const char* what, const std::function<double(const Values& x)>& loss, const Values& x,
                    const Values& gradient) {
  CHECK_EQ(x.size(), gradient.size());
  const double step = 1e-5;
  Values moved = x;
  for (std::size_t i = 0; i < x.size(); ++i) {
    moved[i] = x[i] + step;
    const double above = loss(moved);
    moved[i] = x[i] - step;
    const double below = loss(moved);
    moved[i] = x[i];
    const double difference = (above - below) / (2 * step);
    if (!(std::fabs(difference - gradient[i]) <= 1e-7 * std::max(1.0, std::fabs(difference))))
      fail_check(__FILE__, __LINE__, what, '[', i, "] is ", gradient[i], ", finite differences say ", difference);
  }
}

}  // namespace foretoken::test
