#pragma once

#include <cstddef>
#include <functional>
#include <initializer_list>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "test/test.h"

// One test body per operation, run over backends and dtypes. A body computes with a Workbench and returns Values;
// the helpers below compare those of a backend with the reference's, or two evaluations with each other, bit for bit.
namespace foretoken::test {

/// A matrix's numbers, rows one after the other without padding.
using Values = std::vector<double>;

/// What an operation wrote, output by output.
using Results = std::vector<Values>;

struct BackendCase {
  std::string name;
  std::string family;  // members give the same bits: they differ in the number of threads only
  DType dtype;         // of activations
  std::function<std::unique_ptr<Backend>()> make;
};

/// Every backend under test, the reference first; a new backend is a line here (backends.cpp).
const std::vector<BackendCase>& backend_cases();
inline const BackendCase& reference_case() { return backend_cases().front(); }

/// Runs the body for each backend; a failure names the backend.
void for_each_backend(const std::function<void(const BackendCase&)>& body);

/// A backend and operands in its memory. Every operand lies between guards, its rows apart by padding, all filled with
/// NaNs of a known pattern: a stray write changes the pattern, a stray read that matters shows as NaN.
class Workbench {
 public:
  explicit Workbench(const BackendCase& backend) : backend_(backend.make()) {}

  Backend* operator->() { return backend_.get(); }
  Backend& backend() { return *backend_; }
  DType activation() const { return backend_->activation_dtype(); }
  DType accumulation() const { return backend_->accumulation_dtype(); }

  /// Operands that nobody may change.
  View input(DType dtype, std::int64_t rows, std::int64_t cols, const Values& values);
  template <typename T>
  const T* array(const std::vector<T>& values) {
    return static_cast<const T*>(place(values.data(), values.size() * sizeof(T)));
  }
  /// Operands to be written; NaN everywhere where no initial values are given.
  View output(DType dtype, std::int64_t rows, std::int64_t cols, const Values& initial = {});
  void* bytes(std::size_t count);

  /// Checks all guards, paddings and inputs, then downloads.
  Values read(const View& view);
  std::vector<std::int32_t> read_integers(const std::int32_t* data, std::int64_t count);

 private:
  struct Operand {
    Buffer buffer;
    std::vector<std::byte> before;  // the whole buffer as it was placed
    std::vector<bool> writable;     // per byte
  };
  Operand& add(std::size_t bytes);
  View matrix(DType dtype, std::int64_t rows, std::int64_t cols, const Values& values, bool writable);
  const void* place(const void* data, std::size_t bytes);
  void check_guards();

  std::unique_ptr<Backend> backend_;  // outlives the buffers
  std::list<Operand> operands_;
};

/// `count` standard normal numbers, times `scale`; the same for the same seed on every machine.
Values normal(std::int64_t count, std::uint32_t seed, double scale = 1);

/// The values after a trip through the dtype.
Values rounded(const Values& values, DType dtype);

/// `normal`, as the backend's activation or accumulation dtype can hold it.
Values activations(const BackendCase& backend, std::int64_t count, std::uint32_t seed, double scale = 1);
Values accumulations(const BackendCase& backend, std::int64_t count, std::uint32_t seed, double scale = 1);

/// Rows [begin, begin + count) of a matrix with `cols` columns.
Values rows_of(const Values& values, std::int64_t cols, std::int64_t begin, std::int64_t count);
Values absolute(Values values);
double largest(const Values& values);

/// Half the distance from 1 to the next number: the relative error of one rounding.
double unit_roundoff(DType dtype);
/// The dtype in which the backend adds up: float32, or float64 in the reference.
DType accumulation_of(const BackendCase& backend);

/// |actual − expected| <= unit_roundoff(stored) · |expected| + bound, element by element.
void check_close(const char* what, const Values& actual, const Values& expected, DType stored, double bound);
/// The same with a bound of its own for each element.
void check_close(const char* what, const Values& actual, const Values& expected, DType stored, const Values& bounds);

/// The same bits (NaN equals NaN here, so that no failure hides).
void check_equal(const char* what, const Values& actual, const Values& expected);

/// Backends of one family give the same results, bit for bit.
void check_same_in_family(const char* what, const std::function<Results(const BackendCase&)>& operation);

/// `operation(begin, count)` gives (count, cols) results for those rows of one batch; pieces of all sizes and from all
/// parts of the batch have the bits of the whole.
void check_rows_independent(const char* what, std::int64_t rows, std::int64_t cols,
                            const std::function<Values(std::int64_t begin, std::int64_t count)>& operation);

/// Central differences of `loss` at x agree with `gradient`; both in double precision, on functions of order 1, whose
/// error at a step of 1e-5 is near 1e-10.
void check_gradient(const char* what, const std::function<double(const Values& x)>& loss, const Values& x,
                    const Values& gradient);

/// Σ a · b
double inner(const Values& a, const Values& b);

/// Σ over results and weights of the same sizes: turns results into a loss whose gradient is `weights`.
double inner(const Results& results, const Results& weights);

}  // namespace foretoken::test
