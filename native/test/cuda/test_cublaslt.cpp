#include "backend/cuda/cublaslt.h"

#include <cmath>
#include <vector>

#include "core/error.h"
#include "test/operations/harness.h"

// CublasLt over a library made for these tests, which does what cuBLASLt documents: matrices by columns, transposed where
// told, strides, alpha, beta and a bias along the columns of the result. It knows four algorithms, of which one adds up in
// another order and one cannot do few rows.
namespace foretoken::cuda::cublaslt {

struct Context {};
struct Description {
  int transpose_a = kAsStored, transpose_b = kAsStored, epilogue = 1;
  const float* bias = nullptr;
};
struct Layout {
  int type;
  std::uint64_t rows, cols;
  std::int64_t stride;
};
struct Preference {
  std::uint64_t workspace = ~std::uint64_t{0};
  std::uint32_t reductions = 7, alignment[4] = {256, 256, 256, 256};
};

}  // namespace foretoken::cuda::cublaslt

namespace foretoken::test {
namespace {

using namespace cuda;
using namespace cuda::cublaslt;
using Kind = Product::Kind;

enum : std::uint64_t { kForwards = 1, kBackwards = 2, kForwardsToo = 3, kInParts = 4, kOnlyMany = 5 };

struct Calls {
  std::vector<std::uint64_t> algorithms;  // of the products, in order
  std::vector<int> compute;               // types of the descriptions that were made
  int searches = 0;
  Preference preference;  // of the last search
} calls;

double read(const void* data, const Layout& x, std::uint64_t row, std::uint64_t col) {
  const std::size_t i = row + col * static_cast<std::size_t>(x.stride);
  return x.type == kFloat32 ? static_cast<const float*>(data)[i] : static_cast<float>(static_cast<const BFloat16*>(data)[i]);
}

Status heuristic(Context*, Description* description, Layout*, Layout*, Layout*, Layout* d, Preference* preference, int wanted,
                 HeuristicResult* results, int* found) {
  ++calls.searches;
  CHECK_EQ(description->epilogue == kEpilogueBias, description->bias != nullptr);  // its alignment counts
  calls.preference = *preference;
  *found = 0;
  const auto add = [&](std::uint64_t id, std::size_t workspace) {
    if (*found < wanted) results[(*found)++] = {{{id}}, workspace, kSuccess, 1, {}};
  };
  if (preference->reductions != 0) add(kInParts, 4096);
  if (d->cols <= 16) {  // rows of ours
    add(kBackwards, 0);
    add(kForwardsToo, 0);
  } else {
    add(kOnlyMany, 0);
    add(kForwards, 0);
  }
  return kSuccess;
}

bool knows(const Algorithm& algorithm, const Layout& d) { return algorithm.data[0] != kOnlyMany || d.cols >= 256; }

Status matmul(Context*, Description* description, const void* alpha, const void* a, Layout* A, const void* b, Layout* B,
              const void* beta, const void* c, Layout* C, void* d, Layout* D, const Algorithm* algorithm, void* workspace,
              std::size_t workspace_bytes, void*) {
  calls.algorithms.push_back(algorithm->data[0]);
  CHECK(knows(*algorithm, *D));
  CHECK_EQ(workspace_bytes > 0, workspace != nullptr);
  const bool ta = description->transpose_a == kTransposed, tb = description->transpose_b == kTransposed;
  const std::uint64_t depth = ta ? A->rows : A->cols;
  CHECK_EQ(ta ? A->cols : A->rows, D->rows);
  CHECK_EQ(tb ? B->cols : B->rows, depth);
  CHECK_EQ(tb ? B->rows : B->cols, D->cols);
  CHECK_EQ(C->type, D->type);
  const float scale = *static_cast<const float*>(beta);
  for (std::uint64_t row = 0; row < D->rows; ++row)
    for (std::uint64_t col = 0; col < D->cols; ++col) {
      float sum = 0;
      for (std::uint64_t i = 0; i < depth; ++i) {
        const std::uint64_t k = algorithm->data[0] == kBackwards ? depth - 1 - i : i;
        sum = std::fma(static_cast<float>(ta ? read(a, *A, k, row) : read(a, *A, row, k)),
                       static_cast<float>(tb ? read(b, *B, col, k) : read(b, *B, k, col)), sum);
      }
      sum *= *static_cast<const float*>(alpha);
      if (scale != 0) sum += scale * static_cast<float>(read(c, *C, row, col));
      if (description->epilogue == kEpilogueBias) sum += description->bias[row];
      const std::size_t place = row + col * static_cast<std::size_t>(D->stride);
      if (D->type == kFloat32) static_cast<float*>(d)[place] = sum;
      else static_cast<BFloat16*>(d)[place] = BFloat16(sum);
    }
  return kSuccess;
}

template <typename T, typename... Parts>
Status make(T** made, Parts... parts) {
  *made = new T{parts...};
  return kSuccess;
}
template <typename T>
Status destroy(T* object) {
  delete object;
  return kSuccess;
}

Functions functions() {
  calls = {};
  Functions f;
  f.path = "a library of the tests";
  f.get_version = [] { return std::size_t{130102}; };
  f.create = [](Context** made) { return make(made); };
  f.destroy = destroy<Context>;
  f.description_create = [](Description** made, int compute, int) {
    calls.compute.push_back(compute);
    return make(made);
  };
  f.description_destroy = destroy<Description>;
  f.description_set = [](Description* x, int attribute, const void* value, std::size_t bytes) {
    CHECK_EQ(bytes, attribute == kBiasPointer ? sizeof(void*) : sizeof(int));
    if (attribute == kTransposeA) x->transpose_a = *static_cast<const int*>(value);
    if (attribute == kTransposeB) x->transpose_b = *static_cast<const int*>(value);
    if (attribute == kEpilogue) x->epilogue = *static_cast<const int*>(value);
    if (attribute == kBiasPointer) x->bias = *static_cast<const float* const*>(value);
    return kSuccess;
  };
  f.layout_create = [](Layout** made, int type, std::uint64_t rows, std::uint64_t cols, std::int64_t stride) {
    CHECK(stride >= static_cast<std::int64_t>(rows));
    return make(made, type, rows, cols, stride);
  };
  f.layout_destroy = destroy<Layout>;
  f.preference_create = [](Preference** made) { return make(made); };
  f.preference_destroy = destroy<Preference>;
  f.preference_set = [](Preference* x, int attribute, const void* value, std::size_t bytes) {
    CHECK_EQ(bytes, attribute == kMaxWorkspace ? sizeof(std::uint64_t) : sizeof(std::uint32_t));
    if (attribute == kMaxWorkspace) x->workspace = *static_cast<const std::uint64_t*>(value);
    if (attribute == kReductionMask) x->reductions = *static_cast<const std::uint32_t*>(value);
    if (attribute >= kAlignmentA) x->alignment[attribute - kAlignmentA] = *static_cast<const std::uint32_t*>(value);
    return kSuccess;
  };
  f.heuristic = heuristic;
  f.check = [](Context*, Description*, Layout*, Layout*, Layout*, Layout* d, const Algorithm* algorithm, HeuristicResult* result) {
    *result = {*algorithm, algorithm->data[0] == kInParts ? std::size_t{4096} : 0, kSuccess, 1, {}};
    return knows(*algorithm, *d) ? kSuccess : 15;
  };
  f.matmul = matmul;
  return f;
}

/// A matrix on the host, whose rows begin on 16 bytes unless `padding` says otherwise.
struct Matrix {
  std::vector<float> storage;
  View view;
  Matrix(DType dtype, std::int64_t rows, std::int64_t cols, std::uint32_t seed, std::int64_t padding = 0)
      : storage(static_cast<std::size_t>(rows * ((cols + 7) / 8 * 8 + padding) + 8)) {
    auto* begin = reinterpret_cast<std::byte*>(storage.data());
    begin += (16 - reinterpret_cast<std::uintptr_t>(begin) % 16) % 16;
    view = {begin, dtype, rows, cols, (cols + 7) / 8 * 8 + padding};
    const Values values = normal(rows * cols, seed);
    for (std::int64_t i = 0; i < rows * cols; ++i) set(i / cols, i % cols, values[static_cast<std::size_t>(i)]);
  }
  void set(std::int64_t row, std::int64_t col, double value) {
    if (view.dtype == DType::Float32) view.row<float>(row)[col] = static_cast<float>(value);
    else view.row<BFloat16>(row)[col] = BFloat16(static_cast<float>(value));
  }
  double at(std::int64_t row, std::int64_t col) const {
    return view.dtype == DType::Float32 ? view.row<float>(row)[col] : static_cast<float>(view.row<BFloat16>(row)[col]);
  }
};

struct Operands {
  Matrix a, b, out, bias, residual;
  Product product;
  Operands(Kind kind, std::int64_t rows, std::int64_t cols, std::int64_t depth, DType input, DType output)
      : a(input, kind == Kind::BackwardWeight ? depth : rows, kind == Kind::BackwardWeight ? rows : depth, 1),
        b(input, kind == Kind::Forward ? cols : depth, kind == Kind::Forward ? depth : cols, 2), out(output, rows, cols, 3),
        bias(DType::Float32, 1, cols, 4), residual(DType::Float32, rows, cols, 5),
        product{kind, a.view, b.view, out.view, View(), View()} {}

  double expected(std::int64_t row, std::int64_t col) const {
    double sum = 0;
    for (std::int64_t d = 0; d < product.depth(); ++d)
      sum += (product.kind == Kind::BackwardWeight ? a.at(d, row) : a.at(row, d)) *
             (product.kind == Kind::Forward ? b.at(col, d) : b.at(d, col));
    return sum + (product.bias ? bias.at(0, col) : 0) + (product.residual ? residual.at(row, col) : 0);
  }
  void check_result() const {
    for (std::int64_t row = 0; row < out.view.rows; ++row)
      for (std::int64_t col = 0; col < out.view.cols; ++col)
        CHECK_CLOSE(out.at(row, col), expected(row, col), out.view.dtype == DType::Float32 ? 1e-4 : 0.1);
  }
};

TEST("cuBLASLt: every kind of product, with bias and residual") {
  const auto device = make_host_device(ThreadOrder::Forward);
  CublasLt library(*device, functions(), false);
  CHECK_EQ(library.name(), "cuBLASLt 13.1.2");
  for (const Kind kind : {Kind::Forward, Kind::BackwardInput, Kind::BackwardWeight})
    for (const DType output : {DType::Float32, DType::BFloat16})
      for (const bool bias : {false, true})
        for (const bool residual : {false, true})
          for (const std::int64_t rows : {5, 40}) {
            Operands operands(kind, rows, 17, 30, DType::BFloat16, output);
            if (bias) operands.product.bias = operands.bias.view;
            if (residual) operands.product.residual = operands.residual.view;
            const bool can = output == DType::Float32 || (!bias && !residual);
            CHECK_EQ(library.multiply(operands.product), can);
            if (can) operands.check_result();
          }
}

TEST("cuBLASLt: a row's bits do not depend on the batch, though few rows take another algorithm") {
  const auto device = make_host_device(ThreadOrder::Forward);
  CublasLt library(*device, functions(), false);
  Operands many(Kind::Forward, 40, 24, 200, DType::BFloat16, DType::Float32);
  CHECK(library.multiply(many.product));
  CHECK_EQ(calls.algorithms.back(), kForwards);
  CHECK_EQ(calls.preference.workspace, 0u);
  CHECK_EQ(calls.preference.reductions, 0u);

  Product few = many.product;
  Matrix out(DType::Float32, 3, 24, 9);
  few.a = few.a.slice_rows(7, 3);
  few.out = out.view;
  CHECK(library.multiply(few));
  CHECK_EQ(calls.algorithms.back(), kForwardsToo);  // kBackwards came first, but has other bits
  for (std::int64_t row = 0; row < 3; ++row)
    for (std::int64_t col = 0; col < 24; ++col) CHECK(out.at(row, col) == many.out.at(7 + row, col));

  Product one = few;  // which kOnlyMany, found before kForwards, could not do
  one.a = few.a.slice_rows(0, 1);
  one.out = few.out.slice_rows(0, 1);
  CHECK(library.multiply(one));

  const int searches = calls.searches;
  CHECK(library.multiply(few));
  CHECK(library.multiply(many.product));
  CHECK_EQ(calls.searches, searches);
}

TEST("cuBLASLt: a bfloat16 result still shows in which order it was added up") {
  const auto device = make_host_device(ThreadOrder::Forward);
  for (const Kind kind : {Kind::Forward, Kind::BackwardInput}) {
    CublasLt library(*device, functions(), false);
    Operands few(kind, 4, 16, 64, DType::BFloat16, DType::BFloat16);
    CHECK(library.multiply(few.product));
    CHECK_EQ(calls.algorithms.back(), kForwardsToo);
  }
}

TEST("cuBLASLt: products round to TF32 only where that is allowed, and only those of float32") {
  const auto device = make_host_device(ThreadOrder::Forward);
  for (const bool allow : {false, true})
    for (const DType input : {DType::Float32, DType::BFloat16}) {
      CublasLt library(*device, functions(), allow);
      CHECK_EQ(library.name(), allow ? "cuBLASLt 13.1.2, TF32" : "cuBLASLt 13.1.2");
      Operands operands(Kind::Forward, 5, 16, 32, input, DType::Float32);
      CHECK(library.multiply(operands.product));
      CHECK_EQ(calls.compute.back(), allow && input == DType::Float32 ? kComputeTf32 : kComputeFloat32);
      operands.check_result();
    }
}

TEST("cuBLASLt: gradients of weights may be added up in parts, within the workspace") {
  const auto device = make_host_device(ThreadOrder::Forward);
  CublasLt library(*device, functions(), false);
  Operands operands(Kind::BackwardWeight, 24, 40, 33, DType::BFloat16, DType::Float32);
  operands.product.residual = operands.residual.view;
  CHECK(library.multiply(operands.product));
  CHECK_EQ(calls.algorithms.back(), kInParts);
  CHECK(calls.preference.workspace <= library.workspace_bytes());
  operands.check_result();
}

TEST("cuBLASLt: alignment comes from the strides; what does not keep to them is declined") {
  const auto device = make_host_device(ThreadOrder::Forward);
  CublasLt library(*device, functions(), false);
  Operands operands(Kind::Forward, 40, 24, 32, DType::BFloat16, DType::Float32);
  CHECK(library.multiply(operands.product));
  CHECK_EQ(calls.preference.alignment[1], 16u);
  Matrix odd(DType::BFloat16, 40, 32, 1, 1);
  operands.product.a = odd.view;
  CHECK(library.multiply(operands.product));
  CHECK_EQ(calls.preference.alignment[1], 2u);
  operands.product.a = operands.a.view.slice_cols(1, 31);
  operands.product.b = operands.b.view.slice_cols(0, 31);
  CHECK(!library.multiply(operands.product));
}

}  // namespace
}  // namespace foretoken::test
